//! When a configuration is read again: on SIGHUP, and when one of its files has changed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// How often files are looked at. A change counts when it is the same at two looks, so that a file
/// that is being written is not read half.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for reasons to read a configuration again.
pub struct Watch {
    hangup: Signal,
    files: Vec<(PathBuf, Stamp)>,
}

/// What changes when a file does; none where there is no file.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Why a configuration is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody asked for it.
    Signal,
    /// This file has changed.
    File(PathBuf),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signal => f.write_str("SIGHUP"),
            Self::File(file) => write!(f, "{} has changed", file.display()),
        }
    }
}

impl Watch {
    /// Watches files. From now on SIGHUP does not end the process.
    ///
    /// # Errors
    /// If the process cannot listen for signals.
    pub fn new(files: Vec<PathBuf>) -> io::Result<Self> {
        let mut watch = Self {
            hangup: signal(SignalKind::hangup())?,
            files: Vec::new(),
        };
        watch.only(files);
        Ok(watch)
    }

    /// Watches these files alone from now on.
    pub fn only(&mut self, files: Vec<PathBuf>) {
        let known = std::mem::take(&mut self.files);
        let stamped = files.into_iter().map(|file| {
            // One that is watched already may have changed since it was read.
            let before = known.iter().find(|(known, _)| *known == file);
            let stamp = before.map_or_else(|| stamp(&file), |(_, stamp)| *stamp);
            (file, stamp)
        });
        self.files = stamped.collect();
    }

    /// Waits for the next reason.
    pub async fn wait(&mut self) -> Reason {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Vec<Stamp> = self.files.iter().map(|(_, stamp)| *stamp).collect();
        loop {
            tokio::select! {
                Some(()) = self.hangup.recv() => {
                    for (file, known) in &mut self.files {
                        *known = stamp(file);
                    }
                    return Reason::Signal;
                }
                _ = look.tick() => {
                    let now: Vec<Stamp> = self.files.iter().map(|(file, _)| stamp(file)).collect();
                    let changed = self.files.iter().zip(&now).position(|((_, known), now)| known != now);
                    if let Some(at) = changed
                        && now == before
                    {
                        for ((_, known), now) in self.files.iter_mut().zip(now) {
                            *known = now;
                        }
                        return Reason::File(self.files[at].0.clone());
                    }
                    before = now;
                }
            }
        }
    }
}

/// What came of a configuration that was read again.
pub struct Applied {
    /// Keys that have changed and need a restart.
    pub fixed: Vec<&'static str>,
    /// The files that it depends on.
    pub files: Vec<PathBuf>,
}

/// Has a configuration read and applied again whenever there is a reason, for ever. A bad one is
/// logged, and what was in use stays so. `count` is told which of the two it was: `applied` or
/// `refused`.
pub async fn keep<E: std::fmt::Display>(
    mut watch: Watch,
    count: impl Fn(&'static str),
    mut apply: impl AsyncFnMut() -> Result<Applied, E>,
) {
    loop {
        let reason = watch.wait().await;
        let outcome = match apply().await {
            Ok(Applied { fixed, files }) => {
                watch.only(files);
                tracing::info!(%reason, "the configuration was read again, and is in use");
                if !fixed.is_empty() {
                    let keys = fixed.join(", ");
                    tracing::warn!(
                        keys,
                        "these have changed as well, but change only with a restart"
                    );
                }
                "applied"
            }
            Err(error) => {
                tracing::error!(%reason, %error, "the new configuration is not good; the old one stays in use");
                "refused"
            }
        };
        count(outcome);
    }
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal reaches every watch of the process.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_noticed_once_it_rests() {
        let _alone = ALONE.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, b"1").unwrap();
        let mut watch = Watch::new(vec![one.clone(), two.clone()]).unwrap();
        let rest =
            async |watch: &mut Watch| tokio::time::timeout(10 * LOOK, watch.wait()).await.ok();
        assert_eq!(rest(&mut watch).await, None);
        std::fs::write(&one, b"changed").unwrap();
        assert_eq!(rest(&mut watch).await, Some(Reason::File(one.clone())));
        assert_eq!(rest(&mut watch).await, None);
        std::fs::write(&two, b"new").unwrap();
        assert_eq!(rest(&mut watch).await, Some(Reason::File(two.clone())));
        std::fs::remove_file(&one).unwrap();
        assert_eq!(rest(&mut watch).await, Some(Reason::File(one)));
        watch.only(vec![two]);
        assert_eq!(rest(&mut watch).await, None);
    }

    #[tokio::test]
    async fn a_signal_is_a_reason() {
        let _alone = ALONE.lock().await;
        let mut watch = Watch::new(Vec::new()).unwrap();
        let own = std::process::id().to_string();
        std::process::Command::new("kill")
            .args(["-HUP", &own])
            .status()
            .unwrap();
        assert_eq!(watch.wait().await, Reason::Signal);
    }
}
