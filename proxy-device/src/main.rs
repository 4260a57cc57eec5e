//! `proxy-device`: the device sidecar.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use sidecod_device::app;
use sidecod_device::config::Config;
use sidecod_device::inspect::inspect;
use sidecod_device::redirect::Redirect;
use sidecod_device::trial::report;

/// Takes the photos out of an app's inference requests, encodes them, and sends a few kilobytes to
/// proxy-edge. Everything else passes through.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML). Variables such as `SIDECOD_DEVICE__EDGE__URL` go over it.
    #[arg(long, global = true, default_value = "proxy-device.toml")]
    config: PathBuf,
    /// A key to set over the file and the environment, such as edge.url="http://10.0.0.1:7100".
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Check the configuration and the bundle, and do nothing else.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints, installs or removes the rules that send an app's connections to a transparent
    /// listener.
    Redirect(Redirect),
    /// Asks the running sidecar what it has saved, and how far the answers agree.
    Report {
        /// Its admin address, if not the one of the configuration.
        #[arg(long)]
        admin: Option<SocketAddr>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Looks at routes.
    Route {
        #[command(subcommand)]
        command: RouteCommand,
    },
}

#[derive(Subcommand)]
enum RouteCommand {
    /// Shows what would cross for a request on standard input, and sends nothing: a whole HTTP/1.1
    /// request, or a body. Ends with 1 if it would cross as it is.
    Test {
        /// Name of the route; without it the one that takes the request.
        #[arg(long)]
        route: Option<String>,
        /// Content-type of a body that comes without the head of its request.
        #[arg(long)]
        content_type: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Redirect(redirect)) = &arguments.command {
        return set_rules(redirect);
    }
    if let Some(Command::Report {
        admin: Some(admin),
        json,
    }) = &arguments.command
    {
        return tell(show_report(*admin, *json), ExitCode::FAILURE);
    }
    let config = match Config::load(&arguments.config, &arguments.sets) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("proxy-device: {error}");
            return ExitCode::from(2);
        }
    };
    let (result, failure) = if arguments.check {
        (check(&config), ExitCode::from(2))
    } else if let Some(Command::Route { command }) = arguments.command {
        (look(&config, &command), ExitCode::FAILURE)
    } else if let Some(Command::Report { json, .. }) = arguments.command {
        (show_report(config.admin, json), ExitCode::FAILURE)
    } else {
        let started = sidecod_sidecar::log::start(&config.log);
        let started = started.map_err(anyhow::Error::msg);
        (started.and_then(|()| run(config)), ExitCode::FAILURE)
    };
    tell(result, failure)
}

fn tell(result: Result<()>, failure: ExitCode) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-device: {error:#}");
            failure
        }
    }
}

fn set_rules(redirect: &Redirect) -> ExitCode {
    match redirect.run() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("proxy-device redirect: {error}");
            ExitCode::FAILURE
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

fn show_report(admin: SocketAddr, json: bool) -> Result<()> {
    let text = report::ask(admin)?;
    let report = report::read(&text)?;
    if json {
        println!("{text}");
    } else {
        println!("proxy-device at {admin}, {report}");
    }
    Ok(())
}

fn look(config: &Config, command: &RouteCommand) -> Result<()> {
    let RouteCommand::Test {
        route,
        content_type,
    } = command;
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input)?;
    let report = inspect(config, route.as_deref(), content_type.as_deref(), &input)?;
    if report.is_coded() {
        println!("{report}");
        return Ok(());
    }
    bail!("{report}")
}

fn run(config: Config) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .enable_all()
        .build()?
        .block_on(app::run(config))
}
