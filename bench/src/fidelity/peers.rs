//! What people use instead: JPEG, WebP and AVIF as Pillow's libraries code them, in a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Codec, Coded};
use crate::stack::workspace;

/// Side to which a picture is reduced before it is coded as a small JPEG.
const REDUCED: u32 = 160;
const PACKAGES: [&str; 2] = ["pillow>=11.3", "matplotlib"];

const JPEG: [u32; 9] = [20, 30, 40, 50, 60, 70, 80, 88, 94];
const WEBP: [u32; 8] = [10, 20, 35, 50, 65, 80, 90, 95];
const AVIF: [u32; 8] = [25, 35, 45, 55, 65, 75, 85, 93];

/// Names of all peers.
pub const NAMES: [&str; 9] = [
    "jpeg-420",
    "jpeg-444",
    "webp-m0",
    "webp-m4",
    "webp-m6",
    "avif-s10",
    "avif-s8",
    "avif-s6",
    "resize-jpeg",
];

/// A peer at one quality.
pub struct Peer {
    name: &'static str,
    quality: String,
    job: Value,
    pillow: Arc<Mutex<Pillow>>,
}

struct Pillow {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Times {
    bytes: usize,
    encode_ms: f64,
    decode_ms: f64,
}

/// The peers of these names, or all, at every quality of their ladders.
pub fn all(names: &[String]) -> Result<Vec<Peer>> {
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&&name[..])) {
        bail!(
            "there is no peer called {unknown}; there are {}",
            NAMES.join(", ")
        );
    }
    let chosen = |name: &&&str| names.is_empty() || names.iter().any(|wanted| wanted == **name);
    let pillow = Arc::new(Mutex::new(Pillow::start()?));
    let mut peers = Vec::new();
    for &name in NAMES.iter().filter(chosen) {
        let (family, variant) = name.split_once('-').unwrap_or((name, ""));
        let ladder = match family {
            "webp" => &WEBP[..],
            "avif" => &AVIF[..],
            _ => &JPEG[..],
        };
        for &quality in ladder {
            peers.push(Peer {
                name,
                quality: quality.to_string(),
                job: job(family, variant, quality),
                pillow: pillow.clone(),
            });
        }
    }
    Ok(peers)
}

fn job(family: &str, variant: &str, quality: u32) -> Value {
    let number: u32 = variant[1.min(variant.len())..].parse().unwrap_or_default();
    match family {
        "webp" => json!({"format": "WEBP", "shrink": 0, "repeat": 2,
            "options": {"quality": quality, "method": number}}),
        "avif" => json!({"format": "AVIF", "shrink": 0, "repeat": 2,
            "options": {"quality": quality, "speed": number, "max_threads": 1}}),
        _ => json!({"format": "JPEG", "repeat": 2,
            "shrink": if family == "resize" { REDUCED } else { 0 },
            "options": {"quality": quality, "optimize": true, "progressive": true,
                "subsampling": if variant == "444" { 0 } else { 2 }}}),
    }
}

/// A script of the folder bench/python.
pub fn script(name: &str) -> PathBuf {
    workspace().join("bench/python").join(name)
}

/// A Python that has Pillow with AVIF, and its PYTHONPATH. Installs Pillow into .peers if none has.
pub fn python() -> Result<(String, PathBuf)> {
    let folder = workspace().join(".peers");
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let works = || {
        Command::new(&python)
            .env("PYTHONPATH", &folder)
            .args(["-c", "import sys, matplotlib; from PIL import features; sys.exit(not features.check('avif'))"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !works() {
        eprintln!("installing {} into .peers", PACKAGES.join(" and "));
        let status = Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args([
                "--root-user-action=ignore",
                "--no-warn-conflicts",
                "--upgrade",
                "--target",
            ])
            .arg(&folder)
            .args(PACKAGES)
            .stdout(std::io::stderr())
            .status()
            .with_context(|| {
                format!("cannot start {python}: set PYTHON to a Python 3.9 or later")
            })?;
        ensure!(
            status.success() && works(),
            "{python} -m pip install --target .peers {} did not help: is pip there?",
            PACKAGES.join(" ")
        );
    }
    Ok((python, folder))
}

impl Pillow {
    fn start() -> Result<Self> {
        let (python, path) = python()?;
        let mut child = Command::new(&python)
            .env("PYTHONPATH", path)
            .arg(script("peers.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {python}"))?;
        let input = child.stdin.take().context("a piped input")?;
        let output = BufReader::new(child.stdout.take().context("a piped output")?);
        let mut pillow = Self {
            child,
            input,
            output,
        };
        eprintln!("peers: {}", pillow.line()?.trim());
        Ok(pillow)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "peers.py has ended: see above");
        Ok(line)
    }

    fn code(&mut self, mut job: Value, picture: &RgbImage) -> Result<Coded> {
        let (width, height) = picture.dimensions();
        job["width"] = width.into();
        job["height"] = height.into();
        writeln!(self.input, "{job}")?;
        self.input.write_all(picture)?;
        self.input.flush()?;
        let times: Times = serde_json::from_str(&self.line()?)?;
        let mut pixels = vec![0; picture.len()];
        self.output.read_exact(&mut pixels)?;
        Ok(Coded {
            bytes: times.bytes,
            encode: Duration::from_secs_f64(times.encode_ms / 1e3),
            decode: Duration::from_secs_f64(times.decode_ms / 1e3),
            pixels: RgbImage::from_raw(width, height, pixels).context("pixels of another size")?,
        })
    }
}

impl Drop for Pillow {
    fn drop(&mut self) {
        // It is of no use without this process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Codec for Peer {
    fn name(&self) -> &str {
        self.name
    }

    fn quality(&self) -> &str {
        &self.quality
    }

    fn code(&mut self, picture: &RgbImage) -> Result<Coded> {
        let mut pillow = self.pillow.lock().unwrap_or_else(PoisonError::into_inner);
        pillow.code(self.job.clone(), picture)
    }
}
