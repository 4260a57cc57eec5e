//! What ends where on an HTTP/1 connection, checked before hyper reads it.
//!
//! Two programs that disagree on where a request ends can be made to answer a request that nobody
//! sent (request smuggling). hyper is strict but not on every point, so the [`Stream`] that it reads
//! from follows the messages itself: it [walks](Walk) through each head, skips the body by count or
//! from chunk to chunk, and stops at the first byte that breaks a rule of RFC 9112. Nothing of what
//! comes after that byte reaches hyper. In a head the byte is replaced with one that hyper refuses,
//! so that the answer, 400, and the end of the connection are hyper's own; in a body it is an error.

mod chunks;
mod head;
mod stream;

pub use head::begins_token;
pub use stream::Stream;

use chunks::Chunks;
use head::Head;

/// A rule that a request breaks; the text is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(&'static str);

/// Follows the requests on one connection.
#[derive(Debug)]
pub struct Walk {
    state: State,
    max_head: usize,
}

#[derive(Debug)]
enum State {
    /// Between requests, or in a head.
    Head(Head),
    /// In a body of so many bytes more.
    Counted { left: u64, upgrade: bool },
    /// In a chunked body.
    Chunked { chunks: Chunks, upgrade: bool },
    /// What follows is not checked: another protocol, or a head over the limit, which hyper refuses.
    Off,
}

/// Where a walk has stopped.
#[derive(Debug, PartialEq, Eq)]
pub struct Stop {
    /// Bytes before the one that breaks a rule.
    pub good: usize,
    /// Whether it is in a head.
    pub in_head: bool,
    /// The rule.
    pub rule: Violation,
}

impl Walk {
    /// A walk from the start of a connection; heads over `max_head` bytes are left to hyper, which
    /// refuses them.
    #[must_use]
    pub fn new(max_head: usize) -> Self {
        Self {
            state: State::Head(Head::default()),
            max_head,
        }
    }

    /// Whether the connection is between two requests.
    #[must_use]
    pub fn is_between(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_fresh())
    }

    /// Goes on over the next bytes of the connection.
    ///
    /// # Errors
    /// [`Stop`] at the first byte that breaks a rule. The walk must not go on after that.
    pub fn over(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let stop = |(good, rule), in_head| Stop {
                good: at + good,
                in_head,
                rule,
            };
            match &mut self.state {
                State::Off => return Ok(()),
                State::Counted { left, upgrade } => {
                    let skip = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= skip as u64;
                    at += skip;
                    if *left == 0 {
                        self.state = after_body(*upgrade);
                    }
                }
                State::Chunked { chunks, upgrade } => {
                    let upgrade = *upgrade;
                    let (walked, ended) = chunks.over(rest).map_err(|rule| stop(rule, false))?;
                    at += walked;
                    if ended {
                        self.state = after_body(upgrade);
                    }
                }
                State::Head(head) => {
                    let (walked, end) = head.over(rest).map_err(|rule| stop(rule, true))?;
                    at += walked;
                    if let Some(end) = end {
                        self.state = end.into();
                    } else if head.length() > self.max_head {
                        self.state = State::Off;
                    }
                }
            }
        }
        Ok(())
    }
}

impl From<head::End> for State {
    fn from(end: head::End) -> Self {
        match end {
            head::End::Tunnel => Self::Off,
            head::End::Body { length: 0, upgrade } => after_body(upgrade),
            head::End::Body { length, upgrade } => Self::Counted {
                left: length,
                upgrade,
            },
            head::End::Chunked { upgrade } => Self::Chunked {
                chunks: Chunks::default(),
                upgrade,
            },
        }
    }
}

fn after_body(upgrade: bool) -> State {
    if upgrade {
        State::Off
    } else {
        State::Head(Head::default())
    }
}

#[cfg(test)]
mod tests;
