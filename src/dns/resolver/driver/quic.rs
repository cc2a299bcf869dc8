//! DNS over QUIC (RFC 9250): each question on a stream of its own.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{Connection, Endpoint, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use rustls_pki_types::ServerName;

use super::{
    line::{id_of, set_id},
    stream::framed,
};

/// The longest message with its length.
const LONGEST: usize = 2 + 65535;
/// RFC 9250 §4.3: DOQ_NO_ERROR.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// A connection on which nothing comes for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub(super) struct Quic {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, b"");
    }
}

impl Quic {
    pub(super) async fn connect(
        address: SocketAddr,
        name: &ServerName<'static>,
        tls: Arc<rustls::ClientConfig>,
    ) -> io::Result<Self> {
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let endpoint = Endpoint::client(any)?;
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(SILENCE.try_into().map_err(io::Error::other)?));
        // The server has nothing to ask of us.
        transport.max_concurrent_bidi_streams(0_u8.into()).max_concurrent_uni_streams(0_u8.into());
        transport.datagram_receive_buffer_size(None);
        let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let connecting = endpoint.connect_with(config, address, &name.to_str()).map_err(io::Error::other)?;
        let connection = connecting.await.map_err(io::Error::other)?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    pub(super) fn is_over(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, mut message: Vec<u8>) -> impl Future<Output = io::Result<Vec<u8>>> + use<> {
        let connection = self.connection.clone();
        // RFC 9250 §4.2.1: the stream tells answers apart.
        let id = id_of(&message);
        set_id(&mut message, 0);
        async move {
            let (mut send, mut receive) = connection.open_bi().await.map_err(io::Error::other)?;
            send.write_all(&framed(&message)?).await.map_err(io::Error::other)?;
            send.finish().map_err(io::Error::other)?;
            let bytes = receive.read_to_end(LONGEST).await.map_err(io::Error::other)?;
            let (length, answer) = bytes.split_first_chunk::<2>().ok_or(io::ErrorKind::UnexpectedEof)?;
            let mut answer = answer.get(..usize::from(u16::from_be_bytes(*length))).unwrap_or_default().to_vec();
            set_id(&mut answer, id);
            Ok(answer)
        }
    }
}
