//! `proxy-device`: the device sidecar.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sidecod_device::app;
use sidecod_device::config::Config;

/// Takes the photos out of an app's inference requests, encodes them, and sends a few kilobytes to
/// proxy-edge. Everything else passes through.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML). Variables such as `SIDECOD_DEVICE__EDGE__URL` go over it.
    #[arg(long, default_value = "proxy-device.toml")]
    config: PathBuf,
    /// A key to set over the file and the environment, such as edge.url="http://10.0.0.1:7100".
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Check the configuration and the bundle, and do nothing else.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config, &arguments.sets) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("proxy-device: {error}");
            return ExitCode::from(2);
        }
    };
    let (result, failure) = if arguments.check {
        (check(&config), ExitCode::from(2))
    } else {
        sidecod_sidecar::log::start();
        (run(config), ExitCode::FAILURE)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-device: {error:#}");
            failure
        }
    }
}

fn check(config: &Config) -> Result<()> {
    let (codec, _) = app::open(config)?;
    let bundle = codec.bundle();
    let qualities: Vec<_> = bundle
        .manifest
        .qualities
        .iter()
        .map(|quality| &quality.name[..])
        .collect();
    println!(
        "codec {} {}, bundle {}",
        bundle.manifest.name, bundle.manifest.version, bundle.digest
    );
    println!("qualities: {}", qualities.join(", "));
    for route in &config.routes {
        println!("route {}: {} {}", route.name, route.method, route.path);
    }
    println!("the configuration is good");
    Ok(())
}

fn run(config: Config) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build()?
        .block_on(app::run(config))
}
