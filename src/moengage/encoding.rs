//! `Content-Encoding: gzip` and `Transfer-Encoding: gzip`. Servers use them in two ways: for a gzip around the archive, and
//! for an archive that is itself a gzip.
//!
//! This file owns that distinction: an announced layer is decompressed if it is present and holds another archive, or what
//! is sent in place of one: a web page, a JSON object, nothing. Then the verifier sees that it is none. Proxies and login
//! pages also compress without announcing it, so a layer around a web page is always decompressed. It must not know where
//! the bytes come from.

use std::{collections::VecDeque, io, io::Write, mem};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, TRANSFER_ENCODING};

use crate::magic::{self, Magic};

/// Bytes of output that are passed on together; a step of the decoder adds at most its own 32 KiB buffer.
const ENOUGH: usize = 192 * 1024;

/// Bytes of input for one step of a probe. Few, because a bomb must not inflate in it.
const PROBE_STEP: usize = 512;

/// A gzip whose content is unknown after this many bytes is not decompressed.
const PROBE_LIMIT: usize = 256 * 1024;

/// Most layers that are decompressed. Chains of servers and proxies add two.
pub(super) const MOST_LAYERS: usize = 4;

/// What a gzip that the server announces around a body means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnnouncedGzip {
    /// An encoding for transport: it is decompressed.
    Transport,
    /// A part of the archive: the bytes stay as received. For a damaged gzip, which must be kept as evidence.
    Archive,
}

/// Decompresses a body: [`feed`](Layers::feed) received bytes, take [`next`](Layers::next) until it is `None`, and call
/// [`end`](Layers::end) after the last byte.
pub(super) struct Layers {
    /// The outermost first. The output of each is the input of the next; the output of the last is the archive.
    layers: Vec<Layer>,
    /// Number of layers that have received their last byte.
    ended: usize,
    /// Whether the first layer has its last byte.
    body_ended: bool,
}

impl Layers {
    /// The layers that a response's headers announce. Other encodings than gzip are not requested; they are kept, and the
    /// verifier rejects them.
    ///
    /// # Errors
    ///
    /// The number of layers, if it is more than [`MOST_LAYERS`].
    pub(super) fn announced_by(headers: &HeaderMap) -> Result<Self, usize> {
        // In the order in which they were applied (RFC 9110, 8.4; RFC 9112, 6.1).
        let values = headers.get_all(CONTENT_ENCODING).iter().chain(headers.get_all(TRANSFER_ENCODING));
        let encodings: Vec<_> = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !matches!(name.as_str(), "" | "identity" | "chunked"))
            .collect();
        let layers = encodings.iter().rev().take_while(|name| matches!(name.as_str(), "gzip" | "x-gzip")).count();
        match layers {
            0 => Ok(Self::of(vec![Layer::undecided(false)])),
            1..=MOST_LAYERS => Ok(Self::of((0..layers).map(|_| Layer::undecided(true)).collect())),
            _ => Err(layers),
        }
    }

    /// No layers.
    pub(super) fn as_received() -> Self {
        Self::of(vec![Layer::AsReceived(VecDeque::new())])
    }

    fn of(layers: Vec<Layer>) -> Self {
        Self { layers, ended: 0, body_ended: false }
    }

    /// Whether a layer was announced, and more input is needed before there is output.
    pub(super) fn are_announced(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Layer::Undecided { is_announced: true, .. }))
    }

    /// Whether a layer is decompressed.
    pub(super) fn is_stripped(&self) -> bool {
        self.layers.iter().any(Layer::is_stripped)
    }

    /// Takes received bytes. An error if a layer is damaged.
    pub(super) fn feed(&mut self, bytes: Bytes) -> io::Result<()> {
        self.layers[0].feed(bytes);
        self.settle()
    }

    /// Ends the input. An error, here or from [`next`](Layers::next), if a layer is incomplete.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.body_ended = true;
        self.settle()
    }

    /// The next output, at most 256 KiB of it inflated; `None` if it needs more input, or at the end. An error if a layer
    /// is damaged.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.next_of(self.layers.len() - 1)
    }

    /// Decides for each layer whether it is present, as far as the input allows.
    fn settle(&mut self) -> io::Result<()> {
        for inner in 0..self.layers.len() {
            while self.layers[inner].is_undecided() {
                let outer = if inner == 0 { None } else { self.next_of(inner - 1)? };
                match outer {
                    Some(bytes) => self.layers[inner].feed(bytes),
                    None if self.is_to_end(inner) => self.end_of(inner)?,
                    None => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn next_of(&mut self, layer: usize) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.layers[layer].next()? {
                return Ok(Some(bytes));
            }
            let outer = if layer == 0 { None } else { self.next_of(layer - 1)? };
            match outer {
                Some(bytes) => self.layers[layer].feed(bytes),
                None if self.is_to_end(layer) => self.end_of(layer)?,
                None => return Ok(None),
            }
        }
    }

    /// Whether this layer has its last byte and is not yet ended.
    fn is_to_end(&self, layer: usize) -> bool {
        self.ended == layer && self.body_ended
    }

    fn end_of(&mut self, layer: usize) -> io::Result<()> {
        self.ended = layer + 1;
        self.layers[layer].end()
    }
}

/// One layer.
enum Layer {
    /// Not present, or not decompressed.
    AsReceived(VecDeque<Bytes>),
    /// Announced, or possible; too little of its content is known.
    Undecided { received: VecDeque<Bytes>, probe: Box<MultiGzDecoder<Vec<u8>>>, is_announced: bool },
    /// Present: decompressed.
    Gzip { received: VecDeque<Bytes>, decoder: Box<MultiGzDecoder<Vec<u8>>> },
}

impl Layer {
    fn undecided(is_announced: bool) -> Self {
        Layer::Undecided { received: VecDeque::new(), probe: Box::new(MultiGzDecoder::new(Vec::new())), is_announced }
    }

    /// Whether more input is needed before there is output.
    fn is_undecided(&self) -> bool {
        matches!(self, Layer::Undecided { .. })
    }

    /// Whether a layer is decompressed.
    fn is_stripped(&self) -> bool {
        matches!(self, Layer::Gzip { .. })
    }

    fn feed(&mut self, bytes: Bytes) {
        match self {
            Layer::AsReceived(received) | Layer::Gzip { received, .. } => received.push_back(bytes),
            Layer::Undecided { received, probe, is_announced } => {
                received.push_back(bytes.clone());
                let is_transport = probe_content(probe, &bytes, *is_announced);
                if let Some(is_transport) = is_transport {
                    self.decide(is_transport);
                } else if received.iter().map(Bytes::len).sum::<usize>() > PROBE_LIMIT {
                    self.decide(false);
                }
            }
        }
    }

    /// Ends the input. An error if the layer is incomplete.
    fn end(&mut self) -> io::Result<()> {
        match self {
            Layer::AsReceived(_) => Ok(()),
            Layer::Undecided { received, probe, is_announced } => {
                let is_whole = !received.is_empty() && probe.try_finish().is_ok();
                if is_whole && holds_no_report(probe.get_ref(), *is_announced) {
                    // The probe has all of the content, which is short.
                    let decoder = mem::replace(probe, Box::new(MultiGzDecoder::new(Vec::new())));
                    *self = Layer::Gzip { received: VecDeque::new(), decoder };
                } else {
                    self.decide(false);
                }
                Ok(())
            }
            Layer::Gzip { decoder, .. } => decoder.try_finish(),
        }
    }

    /// The next output, at most 256 KiB of it inflated; `None` if it needs more input. An error if the layer is damaged.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Layer::AsReceived(received) => Ok(received.pop_front()),
            Layer::Undecided { .. } => Ok(None),
            Layer::Gzip { received, decoder } => {
                while let Some(first) = received.front_mut() {
                    if first.is_empty() {
                        received.pop_front();
                        continue;
                    }
                    if decoder.get_ref().len() >= ENOUGH {
                        break;
                    }
                    match decoder.write(first)? {
                        0 => return Err(io::Error::new(io::ErrorKind::InvalidData, "other data follows its end")),
                        taken => first.advance(taken),
                    }
                }
                let inflated = mem::take(decoder.get_mut());
                Ok((!inflated.is_empty()).then(|| inflated.into()))
            }
        }
    }

    fn decide(&mut self, is_transport: bool) {
        if let Layer::Undecided { received, .. } = self {
            let received = mem::take(received);
            *self = if is_transport {
                Layer::Gzip { received, decoder: Box::new(MultiGzDecoder::new(Vec::new())) }
            } else {
                Layer::AsReceived(received)
            };
        }
    }
}

/// Whether a gzip is an encoding for transport, by its content; `None` while that is undecided.
fn probe_content(probe: &mut MultiGzDecoder<Vec<u8>>, mut bytes: &[u8], is_announced: bool) -> Option<bool> {
    while !bytes.is_empty() {
        let step = &bytes[..bytes.len().min(PROBE_STEP)];
        let taken = match probe.write(step).and_then(|taken| probe.flush().map(|()| taken)) {
            // Not a gzip, or a damaged one: the verifier reports it.
            Err(_) | Ok(0) => return Some(false),
            Ok(taken) => taken,
        };
        bytes = &bytes[taken..];
        match magic::recognise(probe.get_ref()) {
            None => {}
            Some(Magic::Zip | Magic::Gzip | Magic::Tar | Magic::Unsupported(_)) => return Some(is_announced),
            Some(Magic::Unknown) => return Some(holds_no_report(probe.get_ref(), is_announced)),
        }
    }
    None
}

/// Whether the content of a gzip, which is no archive, is sent in place of one. Lines of JSON can be a report; a server
/// announces no encoding around them.
fn holds_no_report(content: &[u8], is_announced: bool) -> bool {
    magic::is_page(content) || (is_announced && (content.is_empty() || magic::is_json(content)))
}
