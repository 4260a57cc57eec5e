//! The chains: two proxies of a kind in front of the same server.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::usage::{self, Usage};
use crate::client::Client;
use crate::stack::{Program, config_of, free_port, ready, set};

/// The chain that the others are compared with.
pub(super) const NGINX: &str = "nginx";
const ANSWER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Two proxies, one behind the other, in front of a server.
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) url: String,
    processes: Vec<u32>,
    /// Ends when the chain is dropped.
    kept: Vec<Kept>,
}

/// Something that runs as long as it is kept.
enum Kept {
    Folder { _folder: TempDir },
    Process(Child),
    Program { _program: Program },
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Process(child) = self {
            // SIGTERM, so that nginx ends its worker too.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

impl Chain {
    /// What its proxies have used so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for process in &self.processes {
            let one = usage::of(*process)?;
            sum.cpu_seconds += one.cpu_seconds;
            sum.peak_mib += one.peak_mib;
        }
        Ok(sum)
    }
}

/// All chains, started and answering. The first has no proxies: the server itself.
pub(super) async fn all() -> Result<Vec<Chain>> {
    for (program, flag) in [("nginx", "-v"), ("haproxy", "-v"), ("wrk", "-v")] {
        let mut command = Command::new(program);
        let found = command
            .arg(flag)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        ensure!(
            found.status().is_ok(),
            "{program} is not installed: apt-get install nginx-light haproxy wrk"
        );
    }
    let server_port = free_port()?;
    let server = nginx("direct", &[(server_port, format!("return 200 {ANSWER};"))])?;
    let chains = vec![
        server,
        two_nginx(server_port)?,
        two_haproxies(server_port)?,
        sidecars(server_port).await?,
    ];
    for chain in &chains {
        answers(chain).await?;
    }
    Ok(chains)
}

fn two_nginx(server: u16) -> Result<Chain> {
    let (first, second) = (free_port()?, free_port()?);
    let pass = |port: u16| {
        format!(
            "proxy_pass http://to{port}; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_request_buffering off;"
        )
    };
    let one = nginx(NGINX, &[(first, pass(second))])?;
    let two = nginx(NGINX, &[(second, pass(server))])?;
    Ok(Chain {
        name: NGINX,
        url: one.url.clone(),
        processes: [&one.processes[..], &two.processes].concat(),
        kept: one.kept.into_iter().chain(two.kept).collect(),
    })
}

/// One nginx with a server for each port and what it does there.
fn nginx(name: &'static str, servers: &[(u16, String)]) -> Result<Chain> {
    let folder = tempfile::tempdir()?;
    let mut http = String::new();
    for (port, action) in servers {
        if let Some(next) = action.strip_prefix("proxy_pass http://to") {
            let next: String = next.chars().take_while(char::is_ascii_digit).collect();
            writeln!(
                http,
                "upstream to{next} {{ server 127.0.0.1:{next}; keepalive 512; keepalive_requests 100000000; }}"
            )?;
        }
        writeln!(
            http,
            "server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ {action} }} }}"
        )?;
    }
    let path = folder.path().display();
    let config = format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/errors;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_max_body_size 0;\n\
         client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;\n\
         uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n{http}}}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, config)?;
    let child = start(
        Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(folder.path().join("errors")),
    )?;
    let port = servers.first().context("a server")?.0;
    Ok(chain_of(name, port, folder, child))
}

fn two_haproxies(server: u16) -> Result<Chain> {
    let (first, second) = (free_port()?, free_port()?);
    let one = haproxy(first, second)?;
    let two = haproxy(second, server)?;
    Ok(Chain {
        name: "haproxy",
        url: one.url.clone(),
        processes: [&one.processes[..], &two.processes].concat(),
        kept: one.kept.into_iter().chain(two.kept).collect(),
    })
}

fn haproxy(port: u16, next: u16) -> Result<Chain> {
    let folder = tempfile::tempdir()?;
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n\
         frontend in\n  bind 127.0.0.1:{port}\n  default_backend out\n\
         backend out\n  server next 127.0.0.1:{next}\n"
    );
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let child = start(Command::new("haproxy").arg("-f").arg(&file))?;
    Ok(chain_of("haproxy", port, folder, child))
}

fn chain_of(name: &'static str, port: u16, folder: TempDir, child: Child) -> Chain {
    Chain {
        name,
        url: format!("http://127.0.0.1:{port}/"),
        processes: vec![child.id()],
        kept: vec![Kept::Process(child), Kept::Folder { _folder: folder }],
    }
}

async fn sidecars(server: u16) -> Result<Chain> {
    let mut arguments = vec!["--config".to_owned(), config_of("proxy-edge.toml")];
    arguments.extend(set("listen", "\"127.0.0.1:0\""));
    arguments.extend(set("admin", "\"127.0.0.1:0\""));
    let upstream = format!("[{{name=\"default\",url=\"http://127.0.0.1:{server}\"}}]");
    arguments.extend(set("upstream", &upstream));
    // One, as the other chains have.
    arguments.extend(set("worker_threads", "1"));
    let edge = Program::start("proxy-edge", &arguments)?;
    let mut arguments = vec!["--config".to_owned(), config_of("proxy-device.toml")];
    arguments.extend(set("listen.reverse", "[\"127.0.0.1:0\"]"));
    arguments.extend(set("admin", "\"127.0.0.1:0\""));
    arguments.extend(set(
        "edge.url",
        &format!("\"http://{}\"", edge.address("data")),
    ));
    arguments.extend(set("direct", &format!("\"http://127.0.0.1:{server}\"")));
    // Nothing is coded.
    arguments.extend(set("route", "[]"));
    arguments.extend(set("worker_threads", "1"));
    let device = Program::start("proxy-device", &arguments)?;
    ready(&format!("http://{}/ready", edge.address("admin"))).await?;
    Ok(Chain {
        name: "sidecod",
        url: format!("http://{}/", device.address("reverse")),
        processes: vec![device.id(), edge.id()],
        kept: vec![
            Kept::Program { _program: device },
            Kept::Program { _program: edge },
        ],
    })
}

/// Waits until the chain's answer is the server's.
async fn answers(chain: &Chain) -> Result<()> {
    ready(&chain.url).await?;
    let answer = Client::default().get(&chain.url).await?;
    ensure!(
        answer.body() == ANSWER,
        "{} answers something else",
        chain.name
    );
    Ok(())
}

fn start(command: &mut Command) -> Result<Child> {
    let name = Path::new(command.get_program()).display().to_string();
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .with_context(|| format!("cannot start {name}"))
}
