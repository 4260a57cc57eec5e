//! HTTP/1 by hand: just enough to read what another program wrote, without mending anything.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

pub type Fields = Vec<(String, Vec<u8>)>;

/// A message as it stood on the wire; names of fields in lower case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The three words of the first line.
    pub start: [String; 3],
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Whether the body came to the end that it announced.
    pub whole: bool,
    /// Whether only the end of the connection ended the body.
    pub until_close: bool,
}

impl Message {
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| &value[..]).collect()
    }

    pub fn get(&self, name: &str) -> Option<String> {
        let value = *self.all(name).first()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub fn status(&self) -> u16 {
        self.start[1].parse().unwrap_or(0)
    }
}

async fn line(from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

async fn fields(from: &mut BufReader<TcpStream>) -> io::Result<Fields> {
    let mut fields = Vec::new();
    loop {
        let line = line(from).await?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
        let name = String::from_utf8_lossy(&line[..colon]).to_lowercase();
        fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
    }
}

/// Reads a head; an error at the end of the connection.
pub async fn head(from: &mut BufReader<TcpStream>) -> io::Result<Message> {
    let first = String::from_utf8_lossy(&line(from).await?).into_owned();
    let mut words = first.splitn(3, ' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    Ok(Message {
        start: [word(), word(), word()],
        fields: fields(from).await?,
        ..Message::default()
    })
}

/// Reads the body that the head announces; what breaks off is noted.
pub async fn body(from: &mut BufReader<TcpStream>, message: &mut Message, answer: bool) {
    let read = async {
        if message.get("transfer-encoding").is_some() {
            loop {
                let line = line(from).await?;
                let size = String::from_utf8_lossy(&line);
                let size = size.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
                if size == 0 {
                    message.trailers = fields(from).await?;
                    return Ok(());
                }
                let start = message.body.len();
                message.body.resize(start + size, 0);
                from.read_exact(&mut message.body[start..]).await?;
                self::line(from).await?;
            }
        } else if let Some(length) = message.get("content-length") {
            let length = length.parse::<u64>().map_err(io::Error::other)?;
            let read = from.take(length).read_to_end(&mut message.body).await?;
            if (read as u64) < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else if answer {
            message.until_close = true;
            from.read_to_end(&mut message.body).await?;
        }
        io::Result::Ok(())
    };
    message.whole = read.await.is_ok();
}
