//! HTTP/1.1 towards clients, read more strictly than RFC 9112 demands.
//!
//! Two parsers that read one stream of bytes in two ways are how requests are smuggled. So whatever has a second
//! reading (bare line feeds, folded lines, two framings, spaces where none belong) ends the connection with an
//! answer, and what is sent on is written anew from what was understood, never copied.
//!
//! [`head`] reads a request's head, [`body`] its body, [`response`] writes what goes back, [`reply`] reads what an
//! upstream said. All of it is plain functions over bytes: no I/O, no clock. `connection` is the loop around them.

pub mod body;
pub(super) mod connection;
pub mod head;
mod outbound;
pub mod reply;
pub mod response;
mod target;
mod upload;
