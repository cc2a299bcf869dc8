//! Questions out of the tunnel: the same service, with the peer as the origin.

use std::sync::Arc;

use super::tcp;
use crate::{
    dns::{
        Core,
        answer::Asker,
        counters::{Dropped, Transport},
    },
    origin::Source,
    stream::{Datagram, Inlet, Reply},
    supervise::{self, Phase, Stop},
};

/// Takes what the gate hands over until told to stop, or the gate is gone.
pub(in crate::dns) async fn serve(inlet: &mut Inlet, core: Arc<Core>, stop: Stop) {
    loop {
        tokio::select! {
            () = stop.reached(Phase::Drain) => return,
            stream = inlet.streams.recv() => match stream {
                Some(stream) => tcp::accept(stream, &core, &stop),
                None => return stop.reached(Phase::Drain).await,
            },
            datagram = inlet.datagrams.recv() => match datagram {
                Some(datagram) => drop(supervise::task("dns tunnel datagram", answer(datagram, core.clone()))),
                None => return stop.reached(Phase::Drain).await,
            },
        }
    }
}

async fn answer(datagram: Datagram, core: Arc<Core>) {
    let source = Source { origin: datagram.origin, relay: false };
    let asker = Asker { source, client: datagram.client.ip(), transport: Transport::TunnelUdp, name: None };
    let Ok(payload) = super::serve(&core, &asker, &datagram.payload).await else { return };
    let reply = Reply { from: datagram.local, to: datagram.client, payload };
    if datagram.reply.try_send(reply).is_err() {
        core.series.dropped(Dropped::Unsendable);
    }
}
