//! `sidecod-bench`: measures the built programs and prints tables.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sidecod_bench::{offload, photos};

/// Measures Sidecod on real photos, with the programs that stand beside this one.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bytes on the link and answers of 224x224 crops, directly and through both sidecars.
    Offload {
        /// Folder of photos.
        #[arg(long)]
        data: PathBuf,
        /// Take only the photos that the folder's index.csv puts into this split.
        #[arg(long)]
        split: Option<String>,
        /// Print one JSON object with all rows in place of the table.
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Offload { data, split, json } => {
            let photos = photos::list(&data, split.as_deref())?;
            let (rows, summary) = offload::measure(&photos).await?;
            if json {
                println!(
                    "{}",
                    serde_json::json!({ "summary": summary, "photos": rows })
                );
                return Ok(());
            }
            println!(
                "photos                                  {:>10}",
                summary.photos
            );
            println!(
                "bytes from the app, mean                {:>10.0}",
                summary.app_bytes
            );
            println!(
                "bytes sent on the link, mean, all told  {:>10.0}",
                summary.link_bytes
            );
            println!(
                "crossed as a code                       {:>9.1}%",
                summary.coded * 100.0
            );
            println!(
                "same first class as directly            {:>9.1}%",
                summary.agreement * 100.0
            );
            println!(
                "median time directly, no link between   {:>7.1} ms",
                summary.direct_ms
            );
            println!(
                "median time through both sidecars       {:>7.1} ms",
                summary.offloaded_ms
            );
        }
    }
    Ok(())
}
