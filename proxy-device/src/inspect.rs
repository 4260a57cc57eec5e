//! What a route would do with a request, without sending anything: `proxy-device route test`.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use sidecod_wire::frame::{Frame, PictureSlot, Slot};
use sidecod_wire::limits::Limits;
use sidecod_wire::slot::{Form, Text};
use sidecod_wire::sound::{Sound, SoundType};

use crate::app;
use crate::bundle::{Active, Cache};
use crate::config::{Config, Route};
use crate::encode::{Codec, Crossing, Looked};
use crate::plan;
use crate::plan::option::Kind;
use crate::plan::prepare::prepare;
use crate::route;

/// Headers of one request.
const MOST_HEADERS: usize = 128;

/// What a route would do with a request.
#[derive(Debug)]
pub struct Report {
    route: String,
    body: usize,
    /// What crosses with each option, or why it has to cross as it is.
    verdicts: Vec<(String, Result<Crossing, String>)>,
    inputs: Vec<String>,
}

impl Report {
    /// Whether the inputs would cross as codes, or as smaller files.
    #[must_use]
    pub fn is_coded(&self) -> bool {
        self.verdicts.iter().any(|(_, verdict)| verdict.is_ok())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "route {}, a body of {} bytes", self.route, self.body)?;
        for (index, input) in self.inputs.iter().enumerate() {
            writeln!(f, "input {index}: {input}")?;
        }
        let share = |bytes: usize| bytes as f64 / self.body as f64 * 100.0;
        for (index, (option, verdict)) in self.verdicts.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            if self.verdicts.len() > 1 {
                write!(f, "{option}: ")?;
            }
            match verdict {
                Ok(Crossing::Frame(frame)) => {
                    let (bytes, share) = (frame.len(), share(frame.len()));
                    write!(f, "crosses as a frame of {bytes} bytes, {share:.1} %")?;
                }
                Ok(Crossing::Body { body, .. }) => {
                    let (bytes, share) = (body.len(), share(body.len()));
                    write!(f, "crosses as a body of {bytes} bytes, {share:.1} %")?;
                }
                Ok(Crossing::Answer { body, .. }) => {
                    write!(f, "is answered here, with {} bytes", body.len())?;
                }
                Err(reason) => write!(f, "crosses as it is: {reason}")?,
            }
        }
        Ok(())
    }
}

/// Looks at `input`: a whole HTTP/1.1 request as it would be sent, or only its body, for which
/// `content_type` and the route's name have to be given where they matter.
///
/// # Errors
/// If the bundle cannot be opened, if there is no such route, if no route takes the request, or if
/// the request is incomplete.
pub fn inspect(
    config: &Config,
    name: Option<&str>,
    content_type: Option<&str>,
    input: &[u8],
) -> Result<Report> {
    let (mut request, body) = match head(input)? {
        Some((request, at)) => (request, &input[at..]),
        None => (Request::new(()), input),
    };
    if let Some(value) = content_type {
        let value = HeaderValue::from_str(value).context("--content-type")?;
        request
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, value);
    }
    let route = choose(config, name, &request)?;
    complete(request.headers(), body)?;
    let active = active(config)?;
    let offer = active.offer(route);
    let offer = offer.context("the bundle does not serve this route; --check says why")?;
    let mut report = Report {
        route: route.name.clone(),
        body: body.len(),
        verdicts: Vec::new(),
        inputs: Vec::new(),
    };
    let same = |reason: String| vec![("any option".to_owned(), Err(reason))];
    if !plan::may_offload(request.headers()) {
        let reason = "its headers vouch for the body's bytes, or have an unknown content-encoding";
        report.verdicts = same(reason.to_owned());
        return Ok(report);
    }
    if body.len() > route.max_body {
        report.verdicts = same(format!("max_body of the route is {}", route.max_body));
        return Ok(report);
    }
    let bytes = Bytes::copy_from_slice(body);
    let (shape, limits) = (&offer.coding.shape, active.codec.limits());
    let looked = match Looked::new(request.headers(), bytes, route.max_body, shape, limits) {
        Ok(looked) => looked,
        Err(error) => {
            report.verdicts = same(error.to_string());
            return Ok(report);
        }
    };
    for choice in &offer.choices {
        let verdict = if choice.kind == Kind::Passthrough {
            Err("as planned".to_owned())
        } else {
            prepare(&active.codec, &offer.coding, choice.kind, &looked)
                .map(|coded| coded.crossing)
                .map_err(|error| error.to_string())
        };
        report.verdicts.push((choice.name.clone(), verdict));
    }
    let mut verdicts = report.verdicts.iter();
    let frame = verdicts.find_map(|(_, verdict)| match verdict {
        Ok(Crossing::Frame(frame)) => Some(frame),
        _ => None,
    });
    if let Some(frame) = frame {
        let frame = Frame::decode(frame, &unlimited())?;
        report.inputs = frame.slots.iter().map(describe).collect();
        let sounds = looked.found.sounds.iter();
        let sounds = sounds.map(|sound| format!("{}, stays as it is", sound.media.mime()));
        report.inputs.extend(sounds);
    }
    Ok(report)
}

/// The bundle that is configured, or the one that was fetched last.
pub(crate) fn active(config: &Config) -> Result<Active> {
    // The profile may not be there yet: this is what measures it.
    let mut unmeasured = config.clone();
    unmeasured.plan.profile = None;
    let settings = plan::Settings::new(&unmeasured)?;
    if let Some(folder) = &config.codec.bundle {
        return app::open(folder, config, &settings);
    }
    let latest = Cache::find(config.codec.cache.as_deref()).and_then(|cache| cache.latest());
    let (_, files) = latest.context(
        "no bundle has been fetched yet: run proxy-device once, or say codec.bundle = FOLDER",
    )?;
    let codec = Codec::of(files.all(), "the fetched bundle", config.limits.clone())?;
    Ok(Active::new(&Arc::new(codec), &config.routes, &settings).0)
}

/// The head of a request and where it ends; none if the input does not begin with a request line.
fn head(input: &[u8]) -> Result<Option<(Request<()>, usize)>> {
    let first = input
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    if !first.trim_ascii_end().ends_with(b"HTTP/1.1")
        && !first.trim_ascii_end().ends_with(b"HTTP/1.0")
    {
        return Ok(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(at) = parsed.parse(input).context("the head of the request")?
    else {
        bail!("the head of the request does not end: an empty line is missing");
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())?;
    *request.uri_mut() = parsed
        .path
        .unwrap_or_default()
        .parse::<Uri>()
        .context("the target")?;
    for header in parsed.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes())?;
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(header.value)?);
    }
    Ok(Some((request, at)))
}

/// The route of this name, or the one that takes the request.
fn choose<'c>(config: &'c Config, name: Option<&str>, request: &Request<()>) -> Result<&'c Route> {
    let known = || {
        let names: Vec<_> = config.routes.iter().map(|route| &route.name[..]).collect();
        names.join(", ")
    };
    match name {
        Some(name) => config
            .routes
            .iter()
            .find(|route| route.name == name)
            .with_context(|| format!("no route is named {name}; there are: {}", known())),
        None => route::find(&config.routes, request).with_context(|| {
            format!(
                "no route takes this request; name one with --route: {}",
                known()
            )
        }),
    }
}

/// Whether all of the body is there, as its headers announce it.
fn complete(headers: &HeaderMap, body: &[u8]) -> Result<()> {
    if headers.contains_key(http::header::TRANSFER_ENCODING) {
        bail!("a chunked body is not read here: give it as it is, with its Content-Length");
    }
    if let Some(value) = headers.get(http::header::CONTENT_LENGTH) {
        let announced: usize = value.to_str()?.parse().context("Content-Length")?;
        if announced != body.len() {
            bail!(
                "Content-Length is {announced}, the body has {} bytes",
                body.len()
            );
        }
    }
    Ok(())
}

fn describe(slot: &Slot) -> String {
    let file = |mime: &str, text| match text {
        Text::Raw => mime.to_owned(),
        Text::Base64 { .. } => format!("{mime} in base64"),
    };
    let form = match slot.form() {
        Form::File { media, text } => file(media.mime(), text),
        Form::Tensor(tensor) => format!("a tensor of {} numbers", tensor.len()),
        Form::Sound(text) => file(SoundType::Wav.mime(), text),
    };
    let what = match slot {
        Slot::Picture(picture) => size(picture),
        Slot::Sound { sound, .. } => length(sound),
    };
    format!("{form}, {what}: a code of {} bytes", slot.code().len())
}

/// Pixels of a picture.
fn size(picture: &PictureSlot) -> String {
    let (width, height) = (picture.width, picture.height);
    let coded = picture.coded_size();
    if coded == (width, height) {
        format!("{width}x{height}")
    } else {
        format!("{width}x{height}, coded at {}x{}", coded.0, coded.1)
    }
}

/// How long a sound is.
fn length(sound: &Sound) -> String {
    let samples = &sound.samples;
    let seconds = f64::from(samples.count) / f64::from(samples.rate);
    let channels = match samples.channels {
        1 => "1 channel".to_owned(),
        channels => format!("{channels} channels"),
    };
    format!(
        "{seconds:.2} s of {} Hz, {channels}, as {}",
        samples.rate,
        sound.code.name()
    )
}

/// The frame is of this process.
fn unlimited() -> Limits {
    Limits {
        max_side: u32::MAX,
        max_pixels: u64::MAX,
        max_samples: u64::MAX,
        max_slots: 1 << 16,
        max_skeleton: usize::MAX,
        max_code: usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config() -> Config {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let bundle = root.join("onnx/codecs/photo-v0");
        let file = root.join("examples/demo/proxy-device.toml");
        Config::load(
            &file,
            &[
                format!("codec.bundle={:?}", bundle.display().to_string()),
                r#"route=[{name="photo",path="/a/*"},{name="chat",path="/chat",shape="openai"},{name="small",path="/s",max_body=10}]"#.to_owned(),
            ],
        )
        .unwrap()
    }

    fn photo() -> Vec<u8> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read(root.join("examples/photos/goldfish.jpg")).unwrap()
    }

    #[test]
    fn a_request_shows_its_inputs_and_its_frame() {
        let photo = photo();
        let request = [
            format!(
                "POST /a/b HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                photo.len()
            )
            .as_bytes(),
            &photo,
        ]
        .concat();
        let report = inspect(&config(), None, None, &request).unwrap();
        assert!(report.is_coded(), "{report}");
        let text = report.to_string();
        assert!(text.starts_with("route photo, a body of "), "{text}");
        assert!(text.contains("\ninput 0: image/jpeg, "), "{text}");
        assert!(text.contains("\ncrosses as a frame of "), "{text}");

        let same = inspect(&config(), Some("photo"), Some("image/jpeg"), &photo).unwrap();
        assert_eq!(same.inputs, report.inputs);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let photo = photo();
        let says = |name, input: &[u8]| match inspect(&config(), name, None, input) {
            Ok(report) => report.to_string(),
            Err(error) => format!("{error:#}"),
        };
        for (name, input, expected) in [
            (
                Some("photo"),
                &b"hello"[..],
                "crosses as it is: no photo and no sound in the body",
            ),
            (Some("chat"), b"{", "crosses as it is: JSON body: EOF"),
            (
                Some("small"),
                &photo,
                "crosses as it is: max_body of the route is 10",
            ),
            (
                Some("other"),
                b"",
                "no route is named other; there are: photo, chat, small",
            ),
            (
                None,
                b"GET / HTTP/1.1\r\n\r\n",
                "no route takes this request; name one with --route: photo, chat, small",
            ),
            (
                None,
                b"POST /a/b HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
                "Content-Length is 5, the body has 3 bytes",
            ),
            (
                None,
                b"POST /a/b HTTP/1.1\r\nHost: x\r\n",
                "an empty line is missing",
            ),
            (
                None,
                b"POST /a/b HTTP/1.1\r\nContent-MD5: x\r\n\r\nabc",
                "its headers vouch for the body's bytes",
            ),
        ] {
            let said = says(name, input);
            assert!(said.contains(expected), "{said:?} should say {expected:?}");
        }
    }
}
