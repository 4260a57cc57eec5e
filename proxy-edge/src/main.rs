//! `proxy-edge`: arguments and start-up.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use sidecod_edge::bundles::{self, Stored};
use sidecod_edge::cert::Cert;
use sidecod_edge::config::Config;
use sidecod_edge::init::Init;
use sidecod_edge::memory::SETTINGS;
use sidecod_edge::reload::Source;
use sidecod_edge::{profile, run};
use sidecod_sidecar::config::reference;
use sidecod_sidecar::profile::write;
use sidecod_sidecar::{healthy, log, memory, runtime, tls};

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
    /// Makes certificates for TLS between the sidecars: a private CA, the edge's certificate, and
    /// one file to copy to each device.
    Cert(Cert),
    /// Prints a configuration with every key, its meaning and its default, all as comments.
    Config,
    /// Writes a first configuration (`--config` says where).
    Init(Init),
    /// Asks the proxy-edge that runs with this configuration whether it is ready. Ends with 1, and
    /// says what it waits for, if it is not.
    Healthy,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Cert(cert)) => return made("cert", cert.run()),
        Some(Command::Init(init)) => return made("init", init.run(&arguments.config)),
        Some(Command::Config) => {
            print!("{}", reference::<Config>());
            return ExitCode::SUCCESS;
        }
        Some(Command::Healthy) => return say(ask(&arguments)),
        Some(Command::Profile { .. }) | None => {}
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
    let settled = memory::settle(&SETTINGS);
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
    let source = Source {
        file: arguments.config,
        sets: arguments.sets,
    };
    say(serve(source, config, stored))
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

/// Says what a command has made, or why it has not.
fn made<E: std::fmt::Display>(command: &str, result: Result<String, E>) -> ExitCode {
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("proxy-edge {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(arguments: &Arguments) -> Result<(Config, Vec<Stored>)> {
    let config = Config::load(&arguments.config, &arguments.sets)?;
    if let Some(tls) = &config.tls {
        tls::Server::new(tls).context("tls")?;
    }
    let stored = bundles::read_all(&config.bundles)?;
    Ok((config, stored))
}

fn describe(config: &Config, stored: &[Stored]) {
    let encrypted = if config.plaintext {
        "not encrypted"
    } else {
        "TLS 1.3"
    };
    println!(
        "listen {} ({encrypted}), admin {}",
        config.listen, config.admin
    );
    if let Some(tls) = &config.tls {
        // Read before, so it can be read now.
        if let Ok(expiry) = tls::expiry(&tls.certificate) {
            println!(
                "certificate {} good until {expiry}",
                tls.certificate.display()
            );
        }
    }
    let certificate = config
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    let shown = match (certificate, config.token.is_some()) {
        (true, true) => "a certificate and a token",
        (true, false) => "a certificate",
        (false, true) => "a token",
        (false, false) => "nothing: whoever reaches this address is admitted",
    };
    println!("devices show {shown}");
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

fn serve(source: Source, config: Config, stored: Vec<Stored>) -> Result<()> {
    runtime::start(config.worker_threads)?.block_on(run::run(source, config, stored))?;
    Ok(())
}

fn measure(config: Config, stored: Vec<Stored>, out: &Path, max_side: u32) -> Result<()> {
    let worker_threads = config.worker_threads;
    let measuring = profile::measure(config, stored, max_side);
    let (profile, summary) = runtime::start(worker_threads)?.block_on(measuring)?;
    write(&profile, summary, out).with_context(|| out.display().to_string())
}
