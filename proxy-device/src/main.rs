//! `proxy-device`: the device sidecar.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use sidecod_device::app;
use sidecod_device::config::Config;
use sidecod_device::init::Init;
use sidecod_device::inspect::inspect;
use sidecod_device::link;
use sidecod_device::plan;
use sidecod_device::profile;
use sidecod_device::redirect::Redirect;
use sidecod_device::reload::Source;
use sidecod_device::trial::report;
use sidecod_sidecar::config::reference;
use sidecod_sidecar::profile::write;
use sidecod_sidecar::{healthy, memory, runtime};

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
    /// Measures what the options of the routes take on this machine, for the plan: under two minutes.
    Profile {
        /// The file to write; name it in plan.profile.
        #[arg(long, value_name = "FILE", default_value = "proxy-device.profile.json")]
        out: PathBuf,
        /// Pixels of the side of the largest picture.
        #[arg(long, default_value_t = 1280)]
        max_side: u32,
    },
    /// Prints a configuration with every key, its meaning and its default, all as comments.
    Config,
    /// Asks an edge what it serves, and writes a first configuration for it (`--config` says where).
    Init(Init),
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
    /// Asks the proxy-device that runs with this configuration whether it is ready. Ends with 1, and
    /// says what it waits for, if it is not.
    Healthy,
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
    if let Some(Command::Config) = arguments.command {
        print!("{}", reference::<Config>());
        return ExitCode::SUCCESS;
    }
    if let Some(Command::Init(init)) = &arguments.command {
        return first_config(init, &arguments.config);
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
    } else if let Some(Command::Profile { out, max_side }) = arguments.command {
        (measure(&config, &out, max_side), ExitCode::FAILURE)
    } else if let Some(Command::Route { command }) = arguments.command {
        (look(&config, &command), ExitCode::FAILURE)
    } else if let Some(Command::Healthy) = arguments.command {
        let asked = healthy::ask(config.admin).map_err(anyhow::Error::from);
        (asked, ExitCode::FAILURE)
    } else if let Some(Command::Report { json, .. }) = arguments.command {
        (show_report(config.admin, json), ExitCode::FAILURE)
    } else {
        let started = sidecod_sidecar::log::start(&config.log);
        let started = started.map_err(anyhow::Error::msg);
        let source = Source {
            file: arguments.config,
            sets: arguments.sets,
        };
        let ran = started.and_then(|()| run(source, config));
        (ran, ExitCode::FAILURE)
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

fn first_config(init: &Init, file: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let written = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(init.run(file)));
    match written {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("proxy-device init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(config: &Config) -> Result<()> {
    if let Some(folder) = &config.codec.bundle {
        let active = app::open(folder, config, &plan::Settings::new(config)?)?;
        let bundle = active.codec.bundle();
        let manifest = &bundle.manifest;
        let names = manifest.qualities.iter().map(|quality| &quality.name[..]);
        let names: Vec<_> = names.collect();
        println!(
            "codec {} {}, bundle {}",
            manifest.name, manifest.version, bundle.digest
        );
        println!("qualities: {}", names.join(", "));
        for route in &config.routes {
            let offer = active.offer(route);
            let names: Vec<String> = offer.iter().flat_map(|offer| offer.describe()).collect();
            println!("options of route {}: {}", route.name, names.join(", "));
        }
    } else {
        println!("codec: the edge's, fetched when this sidecar runs");
    }
    link::check(&config.edge).context("edge")?;
    let encrypted = if config.edge.plaintext {
        "not encrypted"
    } else {
        "TLS 1.3"
    };
    for url in config.edge.url.all() {
        println!("edge {} ({encrypted})", url.authority());
    }
    for route in &config.routes {
        println!("route {}: {} {}", route.name, route.method, route.path);
    }
    println!("the configuration is good");
    Ok(())
}

fn measure(config: &Config, out: &Path, max_side: u32) -> Result<()> {
    let (profile, summary) = profile::measure(config, max_side)?;
    write(&profile, summary, out).with_context(|| out.display().to_string())
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

fn run(source: Source, config: Config) -> Result<()> {
    if let Err(error) = memory::settle(&[]) {
        tracing::warn!(%error, "memory that was freed is kept for a while");
    }
    runtime::start(config.worker_threads)?.block_on(app::run(source, config))
}
