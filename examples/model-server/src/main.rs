//! `model-server`: EfficientNet-Lite0 over HTTP.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use clap::Parser;
use sidecod_model_server::journal::Journal;
use sidecod_model_server::model::Model;
use sidecod_model_server::server;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long requests under way may go on after SIGTERM or SIGINT.
const DRAIN: Duration = Duration::from_secs(10);

/// Classifies photos: POST one to /predictions/efficientnet-lite0.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on. Port 0 takes a free one; the line `listening ADDRESS` says which.
    #[arg(long, default_value = "127.0.0.1:8500")]
    listen: SocketAddr,
    /// Photos that are worked on at a time; by default one per core.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Append a line to this file for every answer: the request's x-request-id and the status.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let threads = arguments
        .threads
        .or_else(|| available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let model = Model::load()?;
    let mut router = server::router(model, threads);
    if let Some(file) = &arguments.journal {
        let journal =
            Journal::open(file).with_context(|| format!("--journal {}", file.display()))?;
        router = server::noted(router, journal);
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(threads)
        .enable_all()
        .build()?
        .block_on(serve(arguments.listen, router))
}

async fn serve(address: SocketAddr, router: Router) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = oneshot::channel();
    println!("listening {}", listener.local_addr()?);
    let serve = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stopped.await.unwrap_or_default() })
        .into_future();
    let deadline = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let _ = stop.send(());
        tokio::time::sleep(DRAIN).await;
    };
    // A client that stalls in the middle of its request must not hold the program up.
    tokio::select! {
        served = serve => served.context("cannot go on serving"),
        () = deadline => Ok(()),
    }
}
