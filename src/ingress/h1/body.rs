//! The body of a message: where its data is and where it ends, in whatever pieces it arrives.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use super::head::{Framing, Reject, is_token_byte};

/// Bytes of one chunk's extensions.
const EXTENSION_MAX: u32 = 256;
/// Bytes of all extensions of a body: nobody knows a use for them but to make others work.
const EXTENSIONS_MAX: u32 = 16 * 1024;
/// Bytes of the trailer section.
const TRAILERS_MAX: u32 = 8 * 1024;
/// Digits of a chunk's size, leading zeros among them; as many as a u64 holds.
const SIZE_DIGITS_MAX: u8 = 16;

/// Finds the data of a body in what arrives. It copies nothing and keeps a few numbers.
///
/// Extensions and trailers are checked and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    extensions: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Data up to a known length.
    Length(u64),
    /// Reading the digits of a chunk's size.
    Size { size: u64, digits: u8 },
    /// In the extensions of a chunk.
    Extension { size: u64, read: u32 },
    /// The line feed that ends a chunk's first line.
    SizeLf { size: u64 },
    /// In a chunk.
    Data { left: u64 },
    /// The carriage return after a chunk.
    DataCr,
    /// The line feed after a chunk.
    DataLf,
    /// In the trailer section.
    Trailer { part: Part, read: u32 },
    /// Nothing more belongs to this body.
    End,
}

/// Where in the trailer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// At the beginning of a line.
    Start,
    /// In a field's name.
    Name,
    /// In a field's value.
    Value,
    /// At the line feed after a field.
    Lf,
    /// At the very last line feed.
    LastLf,
}

/// What a piece of a body holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Data: these bytes of the input. The input is done with up to the end of the range.
    Data(Range<usize>),
    /// No data; so many bytes are done with, which is all of the input, and the body goes on.
    More(usize),
    /// The body ends here: so many bytes are done with, the rest belongs to the next message.
    End(usize),
}

impl Decoder {
    /// Begins a body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
        };
        Self { state, extensions: 0 }
    }

    /// Whether the body has ended. If the client closes before, it is cut off.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Returns how much data is still to come, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Finds the next data in `input`, which begins where the last piece ended.
    pub fn decode(&mut self, input: &[u8]) -> Result<Piece, Reject> {
        let mut at = 0;
        loop {
            match &mut self.state {
                State::End => return Ok(Piece::End(at)),
                State::Length(left) => {
                    let Some(data) = take(input, at, left) else { return Ok(Piece::More(at)) };
                    if *left == 0 {
                        self.state = State::End;
                    }
                    return Ok(Piece::Data(data));
                }
                State::Data { left } => {
                    let Some(data) = take(input, at, left) else { return Ok(Piece::More(at)) };
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Piece::Data(data));
                }
                _ => {}
            }
            let Some(&byte) = input.get(at) else { return Ok(Piece::More(at)) };
            at += 1;
            self.step(byte)?;
        }
    }

    /// Takes one byte of what stands between data.
    fn step(&mut self, byte: u8) -> Result<(), Reject> {
        self.state = match (self.state.clone(), byte) {
            (State::Size { digits: 1.., size }, b'\r') => State::SizeLf { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size, read: 0 },
            (State::Size { size, digits }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Reject::bad("chunk: bad size"))?;
                if digits >= SIZE_DIGITS_MAX {
                    return Err(Reject::bad("chunk: size too long"));
                }
                State::Size { size: (size << 4) | u64::from(digit), digits: digits + 1 }
            }
            (State::Extension { size, .. }, b'\r') => State::SizeLf { size },
            (State::Extension { size, read }, _) => {
                self.extensions += 1;
                if read >= EXTENSION_MAX || self.extensions > EXTENSIONS_MAX {
                    return Err(Reject::bad("chunk: extensions too long"));
                }
                if !is_value_byte(byte) {
                    return Err(Reject::bad("chunk: bad extension"));
                }
                State::Extension { size, read: read + 1 }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailer { part: Part::Start, read: 0 },
            (State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::Trailer { part: Part::LastLf, .. }, b'\n') => State::End,
            (State::Trailer { part, read }, _) => {
                if read >= TRAILERS_MAX {
                    return Err(Reject::bad("trailers: too long"));
                }
                State::Trailer { part: part.next(byte)?, read: read + 1 }
            }
            _ => return Err(Reject::bad("chunk: no line end where one belongs")),
        };
        Ok(())
    }
}

impl Part {
    fn next(self, byte: u8) -> Result<Self, Reject> {
        match (self, byte) {
            (Self::Start, b'\r') => Ok(Self::LastLf),
            (Self::Start | Self::Name, _) if is_token_byte(byte) => Ok(Self::Name),
            (Self::Name, b':') => Ok(Self::Value),
            (Self::Value, b'\r') => Ok(Self::Lf),
            (Self::Value, _) if is_value_byte(byte) => Ok(Self::Value),
            (Self::Lf, b'\n') => Ok(Self::Start),
            _ => Err(Reject::bad("trailers: malformed")),
        }
    }
}

/// Takes as much of `left` as there is in `input` from `at` on.
fn take(input: &[u8], at: usize, left: &mut u64) -> Option<Range<usize>> {
    let here = input.len().checked_sub(at).filter(|&here| here > 0)?;
    let taken = usize::try_from(*left).map_or(here, |left| left.min(here));
    *left = left.saturating_sub(taken as u64);
    Some(at..at + taken)
}

/// HTAB, SP, visible ASCII and obs-text.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Frames the body of a response, and sees to it that it is as long as was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// Has no body, or none any more.
    Empty,
    /// So many bytes are still to come.
    Length(u64),
    /// Any number of bytes, in chunks.
    Chunked,
    /// Any number of bytes, until the connection is closed.
    Close,
}

/// A body whose length is not what its head said. The connection cannot be used further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("body is not as long as its head said")]
pub struct WrongLength;

/// What goes before and after a piece of data.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    digits: [u8; 18],
    start: u8,
    /// After the data.
    pub after: &'static [u8],
}

impl Frame {
    const BARE: Self = Self { digits: [0; 18], start: 18, after: b"" };

    fn chunk(len: usize) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 18];
        let mut start = 18_u8;
        let mut left = len;
        for (place, slot) in digits.iter_mut().rev().enumerate() {
            *slot = match place {
                0 => b'\n',
                1 => b'\r',
                2.. if left == 0 => break,
                _ => {
                    let digit = HEX.get(left & 15).copied().unwrap_or(b'0');
                    left >>= 4;
                    digit
                }
            };
            start -= 1;
        }
        Self { digits, start, after: b"\r\n" }
    }

    /// Before the data.
    pub fn before(&self) -> &[u8] {
        self.digits.get(usize::from(self.start)..).unwrap_or_default()
    }
}

impl Encoder {
    /// Counts a piece of data and returns what frames it; for those who write data without copying it.
    pub fn frame(&mut self, len: usize) -> Result<Frame, WrongLength> {
        if len == 0 {
            return Ok(Frame::BARE);
        }
        match self {
            Self::Empty => Err(WrongLength),
            Self::Length(left) => {
                *left = left.checked_sub(len as u64).ok_or(WrongLength)?;
                Ok(Frame::BARE)
            }
            Self::Chunked => Ok(Frame::chunk(len)),
            Self::Close => Ok(Frame::BARE),
        }
    }

    /// Writes a piece of data.
    pub fn put(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), WrongLength> {
        let frame = self.frame(data.len())?;
        out.reserve(data.len() + 20);
        out.put_slice(frame.before());
        out.put_slice(data);
        out.put_slice(frame.after);
        Ok(())
    }

    /// Ends the body: returns what is to be written after all data.
    pub fn finish(&mut self) -> Result<&'static [u8], WrongLength> {
        match std::mem::replace(self, Self::Empty) {
            Self::Length(1..) => Err(WrongLength),
            Self::Chunked => Ok(LAST_CHUNK),
            Self::Empty | Self::Length(0) | Self::Close => Ok(b""),
        }
    }
}

#[cfg(test)]
mod tests;
