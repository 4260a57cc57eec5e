//! `proxy-edge`: arguments and start-up.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sidecod_edge::bundles::{self, Stored};
use sidecod_edge::config::Config;
use sidecod_edge::{memory, run};
use sidecod_sidecar::log;

/// What a configuration that cannot be used ends with.
const BAD_CONFIG: u8 = 2;

/// The edge sidecar: decodes what device sidecars send and calls the model server.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "proxy-edge.toml")]
    config: PathBuf,
    /// Sets a key over the file and the environment, such as listen="127.0.0.1:0".
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Checks the configuration and the bundles' digests, says what was found, and ends.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
    if let Err(error) = log::start(&config.log) {
        eprintln!("proxy-edge: {error}");
        return ExitCode::from(BAD_CONFIG);
    }
    if let Err(error) = settled {
        tracing::warn!(%error, "memory will grow with the number of picture sizes");
    }
    match serve(config, stored) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build()?;
    runtime.block_on(run::run(config, stored))?;
    Ok(())
}
