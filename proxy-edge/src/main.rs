//! `proxy-edge`: arguments and start-up.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use sidecod_edge::bundles::{self, Stored};
use sidecod_edge::config::Config;
use sidecod_edge::{memory, profile, run};
use sidecod_sidecar::profile::write;
use sidecod_sidecar::{healthy, log};

/// What a configuration that cannot be used ends with.
const BAD_CONFIG: u8 = 2;

/// The edge sidecar: decodes what device sidecars send and calls the model server.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "proxy-edge.toml"
    )]
    config: PathBuf,
    /// Sets a key over the file and the environment, such as listen="127.0.0.1:0".
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Checks the configuration and the bundles' digests, says what was found, and ends.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Measures what decoding takes on this machine, for the plans of devices: under two minutes.
    Profile {
        /// The file to write; name it in profile.
        #[arg(long, value_name = "FILE", default_value = "proxy-edge.profile.json")]
        out: PathBuf,
        /// Pixels of the side of the largest picture.
        #[arg(long, default_value_t = 1280)]
        max_side: u32,
    },
    /// Asks the proxy-edge that runs with this configuration whether it is ready. Ends with 1, and
    /// says what it waits for, if it is not.
    Healthy,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Healthy) = arguments.command {
        return say(ask(&arguments));
    }
    let (config, stored) = match prepare(&arguments) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("proxy-edge: {error:#}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    if arguments.check {
        describe(&config, &stored);
        return ExitCode::SUCCESS;
    }
    let settled = memory::settle();
    if let Some(Command::Profile { out, max_side }) = &arguments.command {
        return say(measure(config, stored, out, *max_side));
    }
    if let Err(error) = log::start(&config.log) {
        eprintln!("proxy-edge: {error}");
        return ExitCode::from(BAD_CONFIG);
    }
    if let Err(error) = settled {
        tracing::warn!(%error, "memory will grow with the number of picture sizes");
    }
    say(serve(config, stored))
}

/// How the program ends.
fn say(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(arguments: &Arguments) -> Result<()> {
    let config = Config::load(&arguments.config, &arguments.sets)?;
    Ok(healthy::ask(config.admin)?)
}

fn prepare(arguments: &Arguments) -> Result<(Config, Vec<Stored>)> {
    let config = Config::load(&arguments.config, &arguments.sets)?;
    let stored = bundles::read_all(&config.bundles)?;
    Ok((config, stored))
}

fn describe(config: &Config, stored: &[Stored]) {
    println!(
        "listen {} (not encrypted), admin {}",
        config.listen, config.admin
    );
    let token = if config.token.is_some() {
        "a token"
    } else {
        "no token"
    };
    println!("devices show {token}");
    for stored in stored {
        let (manifest, digest) = (&stored.bundle.manifest, stored.bundle.digest);
        let qualities: Vec<&str> = manifest.qualities.iter().map(|q| q.name.as_str()).collect();
        println!(
            "bundle {} {} {digest}: qualities {}",
            manifest.name,
            manifest.version,
            qualities.join(", ")
        );
    }
    for upstream in &config.upstreams {
        println!(
            "upstream {} {}, {} ms",
            upstream.name,
            upstream.url.authority(),
            upstream.timeout_ms
        );
    }
}

fn serve(config: Config, stored: Vec<Stored>) -> Result<()> {
    runtime(&config)?.block_on(run::run(config, stored))?;
    Ok(())
}

fn measure(config: Config, stored: Vec<Stored>, out: &Path, max_side: u32) -> Result<()> {
    let threads = config.clone();
    let measuring = profile::measure(config, stored, max_side);
    let (profile, summary) = runtime(&threads)?.block_on(measuring)?;
    write(&profile, summary, out).with_context(|| out.display().to_string())
}

fn runtime(config: &Config) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build()
}
