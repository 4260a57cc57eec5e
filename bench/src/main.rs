//! `sidecod-bench`: measures the built programs and prints tables.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use sidecod_bench::{chaos, fidelity, latency, load, offload, overhead, photos, sounds};
use sidecod_edge::config::Precision;
use sidecod_wire::sound::SoundCodec;

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
    /// Bytes and kept answers of our codecs and of JPEG, WebP and AVIF, on crops of photos.
    Fidelity {
        /// Folder of photos.
        #[arg(long)]
        data: PathBuf,
        /// Take only the photos that the folder's index.csv puts into this split.
        #[arg(long)]
        split: Option<String>,
        /// The classifier whose answers are to be kept: ONNX, one input of 1x3xSIDExSIDE.
        #[arg(long)]
        teacher: PathBuf,
        /// The classifier takes (value - mean) / std, values from 0 to 255.
        #[arg(long, default_value_t = 127.0)]
        teacher_mean: f32,
        /// See --teacher-mean.
        #[arg(long, default_value_t = 128.0)]
        teacher_std: f32,
        /// A bundle, several times for several (default: all in onnx/codecs).
        #[arg(long)]
        codec: Vec<PathBuf>,
        /// Peers, with commas between (default: all).
        #[arg(long, value_delimiter = ',')]
        peers: Vec<String>,
        /// At most so many crops, evenly spread over all.
        #[arg(long)]
        max_crops: Option<usize>,
        /// Measure our codecs also with the longer side reduced to this, several with commas between.
        #[arg(long, value_delimiter = ',')]
        max_side: Vec<u32>,
        /// Numbers in which our decoders compute.
        #[arg(long, default_value = "float32")]
        precision: Precision,
        /// Compare the boxes of this detector on whole photos too: nanodet-m as ONNX, 1x3x416x416.
        #[arg(long)]
        detector: Option<PathBuf>,
        /// At most so many photos for the detector, evenly spread over all.
        #[arg(long)]
        max_photos: Option<usize>,
        /// Write fidelity.csv, .json, .svg and .png into this folder.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Print one JSON object in place of the table.
        #[arg(long)]
        json: bool,
    },
    /// Many apps, while edge, link and model server are killed, frozen, cut and started again at
    /// random. Ends with 1 if a request was lost, or answered twice, wrongly, or with an error that
    /// is not documented.
    Chaos {
        /// Seconds of trouble.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Apps at a time.
        #[arg(long, default_value_t = 50)]
        clients: u64,
        /// What decides over everything that is left to chance.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print one JSON object in place of the table.
        #[arg(long)]
        json: bool,
    },
    /// Overload: several times as many requests as there is capacity for. Ends with 1 if fewer than 90
    /// of 100 of the capacity are answered, or a request is lost.
    Load {
        /// Seconds for the capacity, and again for the overload.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many times the capacity.
        #[arg(long, default_value_t = 3.0)]
        times: f64,
        /// Print one JSON object in place of the table.
        #[arg(long)]
        json: bool,
    },
    /// Latency over links of several bandwidths: every option, the plan, and no Sidecod, in one run.
    /// Needs root, iproute2 and python3.
    Latency {
        /// Folder of photos.
        #[arg(long, default_value = "examples/photos")]
        data: PathBuf,
        /// Requests of each method on each link.
        #[arg(long, default_value_t = 12)]
        requests: usize,
        /// Folder with proxy-device.profile.json and proxy-edge.profile.json of this machine.
        #[arg(long)]
        profiles: Option<PathBuf>,
        /// The bundle whose q4 is an option.
        #[arg(long, default_value = "onnx/codecs/photo-light")]
        codec: PathBuf,
        /// Folder of points (`make points`) that options may name.
        #[arg(long)]
        points: Option<PathBuf>,
        /// Options of the route, with commas between.
        #[arg(long, value_delimiter = ',')]
        options: Vec<String>,
        /// Write latency.csv, .json and plots into this folder.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Print one JSON object in place of the tables.
        #[arg(long)]
        json: bool,
        /// The namespaces, near to far; without them they are made.
        #[arg(long, hide = true)]
        inside: Option<String>,
    },
    /// Bytes, answers and times of the points at which a model is cut (`make points`), and of its input.
    Points {
        /// Folder of photos.
        #[arg(long)]
        data: PathBuf,
        /// Only this split of the folder's index.csv.
        #[arg(long)]
        split: Option<String>,
        /// Folder of the points.
        #[arg(long, default_value = "target/points")]
        points: PathBuf,
        /// A bundle for the input, several times for several.
        #[arg(long, default_value = "onnx/codecs/photo")]
        codec: Vec<PathBuf>,
        /// At most so many crops, evenly spread over all.
        #[arg(long)]
        max_crops: Option<usize>,
        /// Megabits a second of the link.
        #[arg(long, default_value_t = 1.0)]
        mbit: f64,
        /// Print one JSON object in place of the table.
        #[arg(long)]
        json: bool,
    },
    /// Bytes and times of sounds, and how near they come back, with each of some codecs.
    Sounds {
        /// Folder of WAV files.
        #[arg(long)]
        data: PathBuf,
        /// `flac`, or `opus:KBITS` of so many kilobits a second, with commas between.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "flac,opus:12,opus:16,opus:24,opus:32"
        )]
        codecs: Vec<SoundCodec>,
        /// Print one JSON object in place of the table.
        #[arg(long)]
        json: bool,
    },
    /// Requests a second, latency, CPU and memory of passing through both sidecars, beside chains of
    /// two nginx and of two haproxy. Needs nginx, haproxy and wrk.
    Overhead {
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 4)]
        seconds: u32,
        /// Measurements of each kind; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Print one JSON object in place of the table.
        #[arg(long)]
        json: bool,
    },
}

#[allow(clippy::too_many_lines)] // one arm for each command
fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Fidelity {
            data,
            split,
            teacher,
            teacher_mean,
            teacher_std,
            codec,
            peers,
            max_crops,
            max_side,
            precision,
            detector,
            max_photos,
            out,
            json,
        } => {
            let report = fidelity::measure(&fidelity::Options {
                data,
                split,
                teacher,
                mean: teacher_mean,
                std: teacher_std,
                codecs: codec,
                peers,
                max_crops,
                max_sides: max_side,
                precision,
                detector,
                max_photos,
                out,
            })?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                fidelity::print(&report);
            }
        }
        Command::Latency {
            inside: None, out, ..
        } => latency::start(out.as_deref())?,
        Command::Latency {
            data,
            requests,
            profiles,
            codec,
            points,
            options,
            out,
            json,
            inside: Some(inside),
        } => {
            let options = latency::Options {
                data,
                requests,
                profiles,
                codec,
                points,
                options,
                out,
            };
            let measuring = latency::measure(&options, &inside);
            let report = tokio::runtime::Runtime::new()?.block_on(measuring)?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                latency::print(&report);
            }
        }
        Command::Points {
            data,
            split,
            points,
            codec,
            max_crops,
            mbit,
            json,
        } => {
            let rows = fidelity::points::measure(&fidelity::points::Options {
                data,
                split,
                points,
                codecs: codec,
                max_crops,
                mbit,
            })?;
            if json {
                println!("{}", serde_json::json!({ "points": rows }));
            } else {
                fidelity::points::print(&rows, mbit);
            }
        }
        Command::Overhead {
            seconds,
            rounds,
            json,
        } => {
            let options = overhead::Options { seconds, rounds };
            let rows = tokio::runtime::Runtime::new()?.block_on(overhead::measure(options))?;
            if json {
                println!("{}", serde_json::json!({ "overhead": rows }));
            } else {
                overhead::print(&rows);
            }
        }
        Command::Chaos {
            seconds,
            clients,
            seed,
            json,
        } => {
            let options = chaos::Options {
                seconds,
                clients,
                seed,
            };
            let report = tokio::runtime::Runtime::new()?.block_on(chaos::measure(options))?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                chaos::print(&report);
            }
            ensure!(report.is_good(), "something happened that must not");
        }
        Command::Load {
            seconds,
            times,
            json,
        } => {
            let options = load::Options { seconds, times };
            let report = tokio::runtime::Runtime::new()?.block_on(load::measure(options))?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                load::print(&report);
            }
            ensure!(
                report.of_capacity >= 0.9 && report.lost == 0,
                "the overload costs too much"
            );
        }
        Command::Sounds { data, codecs, json } => {
            let report = sounds::measure(&data, &codecs)?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                println!("{report}");
            }
        }
        Command::Offload { data, split, json } => {
            let photos = photos::list(&data, split.as_deref())?;
            let (rows, summary) =
                tokio::runtime::Runtime::new()?.block_on(offload::measure(&photos))?;
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
