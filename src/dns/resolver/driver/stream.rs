//! Messages on a stream, each with its length in front (RFC 1035 §4.2.2): TCP, and DNS over TLS (RFC 7858).
//! They go out as they come, and answers come back in any order (RFC 7766 §6.2.1.1).

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::Instant,
};

use super::{
    Event, LONGEST_EXCHANGE,
    line::{Command, Unanswered},
};

/// A server that takes no more for so long is gone.
const WRITE: Duration = Duration::from_secs(2);
/// Messages that nobody waits for, one after another, until the connection is closed: late answers, not a flood.
const MOST_STRAY: usize = 256;

/// Sends what is asked and tells what comes, until nothing was asked for a while or the server hangs up. What
/// is left in `unanswered` was not answered.
pub(super) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    commands: &mut mpsc::Receiver<Command>,
    unanswered: &mut Unanswered,
    events: &mpsc::Sender<Event>,
    idle: Duration,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::new();
    let mut stray = 0;
    let mut last = Instant::now();
    let mut retired = false;
    loop {
        if retired && unanswered.is_empty() {
            return Ok(());
        }
        let until = last + if unanswered.is_empty() { idle } else { LONGEST_EXCHANGE };
        tokio::select! {
            command = commands.recv(), if !retired => match command {
                Some(Command::Ask(ask)) => {
                    last = Instant::now();
                    let message = unanswered.add(ask);
                    let write = async {
                        writer.write_all(&framed(&message)?).await?;
                        writer.flush().await
                    };
                    tokio::time::timeout(WRITE, write).await??;
                }
                Some(Command::Cancel(exchange)) => unanswered.cancel(exchange),
                None => retired = true,
            },
            // It grows as bytes come, not as the server promises.
            read = reader.read_buf(&mut buffer) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some(mut message) = take_message(&mut buffer) {
                    match unanswered.take(&mut message) {
                        Some(exchange) => {
                            (last, stray) = (Instant::now(), 0);
                            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
                            events.send(Event::Message(exchange, message)).await.map_err(gone)?;
                        }
                        None => stray += 1,
                    }
                }
                if stray > MOST_STRAY {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            () = tokio::time::sleep_until(until) => return Ok(()),
        }
    }
}

/// Puts the length in front: both in one segment.
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    Ok(frame)
}

/// Takes a whole message out of what came.
fn take_message(buffer: &mut BytesMut) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*buffer.first_chunk()?));
    if buffer.len() < 2 + length {
        return None;
    }
    buffer.advance(2);
    Some(buffer.split_to(length).to_vec())
}

#[cfg(test)]
mod tests {
    use super::{
        super::line::{Ask, id_of},
        *,
    };
    use crate::dns::resolver::ExchangeId;

    #[tokio::test]
    async fn a_connection_lives_through_late_answers_and_not_through_a_flood() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (tell, mut commands) = mpsc::channel(8);
        let (events, mut heard) = mpsc::channel(1024);
        let server = async move {
            let (mut reader, mut writer) = tokio::io::split(theirs);
            for number in 0..5 {
                tell.send(Command::Ask(Ask { exchange: ExchangeId(number), message: vec![0; 12], again: false }))
                    .await
                    .unwrap();
                let mut question = [0; 14];
                reader.read_exact(&mut question).await.unwrap();
                let mut stray = question;
                stray[2] ^= 0x80;
                writer.write_all(&stray.repeat(200)).await.unwrap();
                writer.write_all(&question).await.unwrap();
                assert!(matches!(heard.recv().await, Some(Event::Message(exchange, answer))
                    if exchange == ExchangeId(number) && id_of(&answer) == 0));
            }
            writer.write_all(&[0, 2, 7, 7].repeat(MOST_STRAY + 1)).await.unwrap();
            (tell, reader, writer)
        };
        let mut unanswered = Unanswered::default();
        let talk = talk(ours, &mut commands, &mut unanswered, &events, Duration::from_secs(60));

        let (ended, _open) = tokio::join!(talk, server);

        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
