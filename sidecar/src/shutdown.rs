//! The end of a process: one signal that many tasks wait for.

use tokio::sync::watch;

/// Told once that the process ends; clones hear the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    receiver: watch::Receiver<bool>,
}

/// Tells every [`Shutdown`] that the process ends, at the latest when it is dropped.
#[derive(Debug)]
pub struct Trigger {
    sender: watch::Sender<bool>,
}

impl Trigger {
    /// Ends the process' work.
    pub fn fire(&self) {
        self.sender.send_replace(true);
    }
}

impl Shutdown {
    /// A signal and what fires it.
    #[must_use]
    pub fn new() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger { sender }, Self { receiver })
    }

    /// Waits for the signal.
    pub async fn wait(&mut self) {
        // An error means that the trigger is gone, which is the same news.
        let _ = self.receiver.wait_for(|fired| *fired).await;
    }
}

/// Waits for SIGTERM or an interrupt from the keyboard.
///
/// # Errors
/// If the process cannot listen for signals.
pub async fn asked_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Waits for what is in flight, or for a second signal: whoever asks twice does not want to wait.
///
/// # Errors
/// If the process cannot listen for signals.
pub async fn unless_asked_again(drained: impl Future<Output = ()>) -> std::io::Result<()> {
    tokio::select! {
        () = drained => Ok(()),
        asked = asked_to_end() => {
            tracing::warn!("asked to end again: requests in flight are given up");
            asked
        }
    }
}
