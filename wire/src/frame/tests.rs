use proptest::prelude::*;

use super::read::CRC_BYTES;
use super::write::put_varint;
use super::*;
use crate::limits::Limits;
use crate::media::MediaType;
use crate::slot::{Length, Notation};
use crate::sound::{Code, Samples};
use crate::tensor::{self, Element, Layout, Tensor, Values};

fn text() -> impl Strategy<Value = Text> {
    let base64 = |(url_safe, padded, escaped)| Text::Base64 {
        url_safe,
        padded,
        escaped,
    };
    prop_oneof![
        Just(Text::Raw),
        any::<(bool, bool, bool)>().prop_map(base64)
    ]
}

fn form() -> impl Strategy<Value = Form> {
    let media = prop_oneof![
        Just(MediaType::Jpeg),
        Just(MediaType::Png),
        Just(MediaType::WebP),
        Just(MediaType::Bmp)
    ];
    let values = prop_oneof![
        (0..Values::NAMED.len()).prop_map(|index| Values::NAMED[index].1),
        (1.0_f32..2.0, any::<[i8; 3]>()).prop_map(|(scale, mean)| Values {
            scale,
            mean: mean.map(f32::from),
            std: [0.5, 2.0, 3.0],
        })
    ];
    let tensor = (
        prop_oneof![Just(Element::U8), Just(Element::F16), Just(Element::F32)],
        prop_oneof![Just(Layout::Chw), Just(Layout::Hwc)],
        prop_oneof![
            Just(tensor::Notation::Binary),
            Just(tensor::Notation::Flat),
            Just(tensor::Notation::Nested)
        ],
        values,
    );
    prop_oneof![
        (media, text()).prop_map(|(media, text)| Form::File { media, text }),
        tensor.prop_map(|(element, layout, notation, values)| Form::Tensor(Tensor {
            width: 0,
            height: 0,
            color: Color::Rgb,
            element,
            layout,
            notation,
            values,
        }))
    ]
}

fn sound() -> impl Strategy<Value = Slot> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..90);
    (
        text(),
        (bytes(), bytes(), bytes()),
        (1_u8..=8, 2_u8..=4, 1_u32..=96_000, 1_u32..100_000),
        0_usize..3,
    )
        .prop_map(|(text, (head, tail, code), samples, codec)| {
            let (channels, width, rate, count) = samples;
            Slot::Sound {
                text,
                sound: Sound {
                    head,
                    tail,
                    samples: Samples {
                        channels,
                        width,
                        rate,
                        count,
                    },
                    code: [Code::Flac, Code::Opus, Code::Pcm][codec](code),
                },
            }
        })
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![3 => picture().prop_map(Slot::Picture), 1 => sound()]
}

fn picture() -> impl Strategy<Value = PictureSlot> {
    (
        form(),
        (1_u32..5000, 1_u32..5000),
        any::<bool>(),
        1_u8..=8,
        prop_oneof![Just(0), 1_u32..5000],
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(
            |(mut form, (width, height), grey, orientation, max_side, code)| {
                let color = if grey { Color::Gray } else { Color::Rgb };
                if let Form::Tensor(tensor) = &mut form {
                    (tensor.width, tensor.height, tensor.color) = (width, height, color);
                }
                PictureSlot {
                    form,
                    width,
                    height,
                    color,
                    orientation,
                    max_side,
                    code,
                }
            },
        )
}

/// A skeleton of `bytes` with a place for each of `slots`, and lengths of each kind.
fn skeleton(bytes: Vec<u8>, mut offsets: Vec<usize>, lengths: bool) -> Skeleton {
    offsets.sort_unstable();
    let count = offsets.len();
    let length = |index: usize, notation| Length {
        offset: offsets[index],
        after: index,
        notation,
        slots: index..count,
        plus: index,
    };
    let lengths = (0..count)
        .filter(|_| lengths)
        .flat_map(|index| {
            [
                length(index, Notation::Decimal),
                length(index, Notation::U32),
            ]
        })
        .collect();
    Skeleton {
        json_end: offsets.first().copied(),
        bytes,
        lengths,
        offsets,
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    (
        any::<[u8; 8]>(),
        any::<u8>(),
        prop::option::of("[ -~]{1,60}"),
        prop::collection::vec(any::<u8>(), 200..400),
        prop::collection::vec((0_usize..200, slot()), 0..4),
        any::<bool>(),
    )
        .prop_map(|(bundle, quality, content_type, bytes, slots, lengths)| {
            let (offsets, slots) = slots.into_iter().unzip();
            Frame {
                bundle,
                quality,
                content_type,
                skeleton: skeleton(bytes, offsets, lengths),
                slots,
            }
        })
}

fn small() -> Frame {
    Frame {
        bundle: *b"bundle00",
        quality: 2,
        content_type: Some("image/jpeg".into()),
        skeleton: skeleton(Vec::new(), vec![0], true),
        slots: vec![Slot::Picture(small_picture())],
    }
}

fn small_picture() -> PictureSlot {
    PictureSlot {
        form: Form::File {
            media: MediaType::Jpeg,
            text: Text::Raw,
        },
        width: 224,
        height: 224,
        color: Color::Rgb,
        orientation: 6,
        max_side: 0,
        code: (0..40).collect(),
    }
}

/// The frame with a right checksum, so that what is inside is what gets tested.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

proptest! {
    #[test]
    fn round_trip(frame in frame()) {
        prop_assert_eq!(Frame::decode(&frame.encode(), &Limits::default()), Ok(frame));
    }

    #[test]
    fn any_bytes_give_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut body = vec![VERSION];
        body.extend_from_slice(&bytes);
        let sealed = sealed(body);
        if let Ok(frame) = Frame::decode(&sealed, &Limits::default()) {
            let held = frame.skeleton.bytes.len() + frame.slots.iter().map(|s| s.code().len()).sum::<usize>();
            prop_assert!(held <= sealed.len());
        }
    }
}

#[test]
fn costs_less_than_64_bytes() {
    let frame = small();
    assert!(frame.encode().len() - frame.slots[0].code().len() < 56);
    let mut frame = frame;
    frame.skeleton.lengths.clear();
    assert!(frame.encode().len() - frame.slots[0].code().len() < 44);
}

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed() {
    let bytes = small().encode();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Frame::decode(&damaged, &Limits::default()).is_err(),
            "bit {bit}"
        );
    }
    for len in 0..bytes.len() {
        assert!(
            Frame::decode(&bytes[..len], &Limits::default()).is_err(),
            "length {len}"
        );
    }
}

#[test]
fn flipped_bits_under_a_right_checksum_never_panic() {
    let bytes = small().encode();
    let body = &bytes[..bytes.len() - CRC_BYTES];
    for bit in 0..body.len() * 8 {
        let mut damaged = body.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(frame) = Frame::decode(&sealed(damaged), &Limits::default()) {
            assert_ne!(frame, small(), "bit {bit}");
        }
    }
    for len in 0..body.len() {
        assert!(Frame::decode(&sealed(body[..len].to_vec()), &Limits::default()).is_err());
    }
}

#[test]
fn limits_are_named() {
    let mut frame = small();
    frame.slots[0] = Slot::Picture(PictureSlot {
        width: 12_000,
        height: 9000,
        ..small_picture()
    });
    let limits = Limits {
        max_side: 4096,
        ..Limits::default()
    };
    let error = Frame::decode(&frame.encode(), &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "slot 0: picture is 12000x9000, limit 4096 pixels a side"
    );

    let samples = Samples {
        channels: 2,
        width: 2,
        rate: 48_000,
        count: 500,
    };
    frame.slots[0] = Slot::Sound {
        text: Text::Raw,
        sound: Sound {
            head: Vec::new(),
            tail: Vec::new(),
            samples,
            code: Code::Flac(Vec::new()),
        },
    };
    let limits = Limits {
        max_samples: 999,
        ..Limits::default()
    };
    let error = Frame::decode(&frame.encode(), &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "slot 0: sound has 1000 samples, limit 999"
    );

    let limits = Limits {
        max_slots: 0,
        ..Limits::default()
    };
    let error = Frame::decode(&small().encode(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "frame number of slots is 1, limit 0");

    let limits = Limits {
        max_code: 39,
        ..Limits::default()
    };
    let error = Frame::decode(&small().encode(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "frame slot code length is 40, limit 39");
}

#[test]
fn a_length_that_is_not_there_takes_no_memory() {
    let mut body = vec![VERSION];
    body.extend_from_slice(&[0; 9]);
    body.push(0);
    put_varint(&mut body, 1 << 20);
    assert_eq!(
        Frame::decode(&sealed(body), &Limits::default()),
        Err(FrameError::Truncated("skeleton length"))
    );
}
