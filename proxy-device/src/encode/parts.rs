//! Parts of a model that run on the device: its head before a codec for features, or all of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sidecod_wire::bundle::{
    Bundle, BundleError, ENCODER, HEAD, LABELS, MANIFEST, MODEL, Point, TABLES,
};
use sidecod_wire::entropy;
use sidecod_wire::frame::{Frame, PictureSlot, Slot};
use sidecod_wire::interface::{Labels, Whole};
use sidecod_wire::limits::Limits;
use sidecod_wire::media::Picture;
use sidecod_wire::slot::{Form, Skeleton};

use super::{Clock, Coded, Crossing, Encoder, EncoderError, Looked, NotCoded, OpenError, Tract};

/// Time of each step.
type Steps = Vec<(&'static str, Duration)>;

/// The heads and the whole model that a configuration names.
#[derive(Default)]
pub struct Parts {
    heads: Vec<Head>,
    local: Option<Local>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = self.heads.iter().map(|head| &head.bundle.manifest.name);
        let local = self.local.iter().map(Local::name);
        f.debug_list().entries(heads).entries(local).finish()
    }
}

impl Parts {
    /// Opens all of them.
    ///
    /// # Errors
    /// [`OpenError`] for the first that is not usable.
    pub fn open(heads: &[PathBuf], local: Option<&Path>) -> Result<Self, OpenError> {
        Ok(Self {
            heads: heads
                .iter()
                .map(|folder| Head::open(folder))
                .collect::<Result<_, _>>()?,
            local: local.map(Local::open).transpose()?,
        })
    }

    /// The heads, in the order of the configuration.
    #[must_use]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The whole model.
    #[must_use]
    pub fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }
}

/// The only input of a request: its form and its pixels.
pub struct Single {
    /// How it was written.
    pub form: Form,
    /// Its pixels.
    pub picture: Picture,
}

/// A place inside a model up to which the device runs it.
pub struct Head {
    bundle: Bundle,
    point: Point,
    model: Box<dyn Encoder>,
    encoder: Box<dyn Encoder>,
}

/// A model that the device runs whole.
pub struct Local {
    whole: Whole,
    labels: Labels,
    model: Box<dyn Encoder>,
}

/// A file of a folder, with errors that name it.
struct Folder<'f>(&'f Path);

impl Folder<'_> {
    fn read(&self, file: &str) -> Result<Vec<u8>, OpenError> {
        let path = self.0.join(file);
        std::fs::read(&path).map_err(|error| OpenError::Read(path.display().to_string(), error))
    }

    fn bundle(&self, error: BundleError) -> OpenError {
        OpenError::Bundle(self.0.display().to_string(), error)
    }

    fn encoder(&self, error: EncoderError) -> OpenError {
        OpenError::Encoder(self.0.display().to_string(), error)
    }
}

impl Head {
    /// Opens a feature's bundle with the tract engine, and runs it once.
    ///
    /// # Errors
    /// [`OpenError`] that names the file.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let folder = Folder(folder);
        let bundle = Bundle::parse(&folder.read(MANIFEST)?, &folder.read(TABLES)?)
            .map_err(|error| folder.bundle(error))?;
        let Some(point) = bundle.manifest.point.clone() else {
            return Err(folder.bundle(BundleError::Value {
                field: "domain",
                value: "image".to_owned(),
                expected: "feature, for a point".to_owned(),
            }));
        };
        let load = |file: &'static str, channels| {
            let onnx = folder.read(file)?;
            let verified = bundle.manifest.verify(file, &onnx);
            verified.map_err(|error| folder.bundle(error))?;
            Tract::load(&onnx, file, channels).map_err(|error| folder.encoder(error))
        };
        let (head, encoder) = (load(HEAD, 3)?, load(ENCODER, point.feature[0])?);
        let opened = Self {
            model: Box::new(head),
            encoder: Box::new(encoder),
            bundle,
            point,
        };
        // The engine's plan is made now, not when the first request waits for it.
        let side = opened.point.input.side as usize;
        let warmed = opened.latent(
            &vec![0.0; 3 * side * side],
            &mut Clock::start(),
            &mut vec![],
        );
        warmed.map_err(|error| folder.encoder(error))?;
        Ok(opened)
    }

    /// What the bundle is.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Makes the frame for a request's only input at the quality of this index.
    ///
    /// # Errors
    /// [`NotCoded`] if the engine fails, which no picture should make it do.
    pub fn code(&self, input: &Single, quality: usize) -> Result<Coded, NotCoded> {
        let (mut clock, mut steps) = (Clock::start(), Vec::with_capacity(4));
        let values = self.point.input.values(&input.picture);
        steps.push(("media", clock.lap()));
        let latent = self.latent(&values, &mut clock, &mut steps)?;
        let manifest = &self.bundle.manifest;
        let (width, height) = self.point.size();
        let (rows, columns) = manifest.latent_size(width, height);
        let symbols = manifest.quantize(quality, &latent, rows, columns);
        steps.push(("encode", clock.lap()));
        let code = entropy::encode(&symbols, &self.bundle.tables[quality])?;
        steps.push(("entropy", clock.lap()));
        let Picture {
            width,
            height,
            color,
            orientation,
            ..
        } = input.picture;
        let slot = Slot::Picture(PictureSlot {
            form: input.form,
            width,
            height,
            color,
            orientation,
            max_side: 0,
            code,
        });
        // The edge answers without the body, so that nothing of it has to cross.
        let frame = Frame {
            bundle: self.bundle.digest.short(),
            quality: quality as u8,
            content_type: None,
            skeleton: Skeleton {
                offsets: vec![0],
                ..Skeleton::default()
            },
            slots: vec![slot],
        };
        Ok(Coded {
            crossing: Crossing::Frame(frame.encode().into()),
            steps,
        })
    }

    fn latent(
        &self,
        values: &[f32],
        clock: &mut Clock,
        steps: &mut Steps,
    ) -> Result<Vec<f32>, EncoderError> {
        let side = self.point.input.side as usize;
        let feature = run(&*self.model, values, side, side)?;
        expect(HEAD, feature.len(), self.point.numbers())?;
        steps.push(("head", clock.lap()));
        let (width, height) = self.point.size();
        let latent = run(&*self.encoder, &feature, height as usize, width as usize)?;
        let manifest = &self.bundle.manifest;
        let (rows, columns) = manifest.latent_size(width, height);
        expect(ENCODER, latent.len(), manifest.channels * rows * columns)?;
        Ok(latent)
    }
}

impl Local {
    /// Opens a folder with a whole model, and runs it once.
    ///
    /// # Errors
    /// [`OpenError`] that names the file.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let folder = Folder(folder);
        let whole = Whole::parse(&folder.read(MANIFEST)?).map_err(|error| folder.bundle(error))?;
        let verified = |file: &str| {
            let bytes = folder.read(file)?;
            let verified = whole.verify(file, &bytes);
            verified.map_err(|error| folder.bundle(error))?;
            Ok::<_, OpenError>(bytes)
        };
        let labels = if whole.files.contains_key(LABELS) {
            let labels = Labels::parse(&verified(LABELS)?, whole.outputs);
            labels.map_err(|error| folder.bundle(error.into()))?
        } else {
            Labels::default()
        };
        let model = Tract::load(&verified(MODEL)?, MODEL, 3);
        let model = model.map_err(|error| folder.encoder(error))?;
        let opened = Self {
            model: Box::new(model),
            whole,
            labels,
        };
        let side = opened.whole.input.side as usize;
        let warmed = opened.outputs(&vec![0.0; 3 * side * side]);
        warmed.map_err(|error| folder.encoder(error))?;
        Ok(opened)
    }

    /// Name of the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.whole.name
    }

    /// Answers a request's only input.
    ///
    /// # Errors
    /// [`NotCoded`] if the engine fails, which no picture should make it do.
    pub fn answer(&self, input: &Single) -> Result<Coded, NotCoded> {
        let mut clock = Clock::start();
        let values = self.whole.input.values(&input.picture);
        let media = clock.lap();
        let outputs = self.outputs(&values)?;
        let Whole { answer, .. } = &self.whole;
        Ok(Coded {
            crossing: Crossing::Answer {
                content_type: answer.content_type.clone(),
                body: answer.text(&outputs, &self.labels).into(),
            },
            steps: vec![("media", media), ("model", clock.lap())],
        })
    }

    fn outputs(&self, values: &[f32]) -> Result<Vec<f32>, EncoderError> {
        let side = self.whole.input.side as usize;
        let outputs = run(&*self.model, values, side, side)?;
        expect(MODEL, outputs.len(), self.whole.outputs)?;
        Ok(outputs)
    }
}

fn run(
    net: &dyn Encoder,
    planes: &[f32],
    height: usize,
    width: usize,
) -> Result<Vec<f32>, EncoderError> {
    net.run(height, width, &|input| input.copy_from_slice(planes))
}

fn expect(file: &'static str, found: usize, expected: usize) -> Result<(), EncoderError> {
    if found == expected {
        return Ok(());
    }
    Err(EncoderError {
        file,
        reason: format!("gives {found} numbers, expected {expected}"),
    })
}

impl Single {
    /// A request's input if it is the only one: of several, one model's answer says nothing.
    ///
    /// # Errors
    /// [`NotCoded::Several`], [`NotCoded::Grpc`], or [`NotCoded::Media`] if it cannot be read.
    pub fn of(looked: &Looked, limits: &Limits) -> Result<Self, NotCoded> {
        if looked.is_grpc {
            return Err(NotCoded::Grpc);
        }
        match &looked.found.inputs[..] {
            // A sound has no pixels, which is said where they are read.
            [input] => Ok(Self {
                form: input.form,
                picture: looked.read(0, limits)?,
            }),
            several => Err(NotCoded::Several(several.len())),
        }
    }
}
