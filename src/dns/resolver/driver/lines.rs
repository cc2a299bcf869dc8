//! The connections that are open: which is used for what comes next, and which makes room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    Event,
    encrypted::{Dialler, Server},
    line::{Ask, Command, WAITING},
};
use crate::dns::resolver::{Contact, ExchangeId};

/// Connections of one thread; the longest unused makes room.
const MOST: usize = 64;
/// Messages under way on one connection, until another is opened.
const PIPELINED: usize = 32;
/// Connections to one server.
const MOST_AT_SERVER: usize = 2;
/// An exchange that was given up after so long, while nothing came from the server, was the last one: the
/// connection may be long gone without anybody having said so.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LineId(u64);

struct Line {
    tell: mpsc::Sender<Command>,
    task: AbortHandle,
    under_way: BTreeMap<ExchangeId, Instant>,
    used: Instant,
    /// When something came last.
    heard: Option<Instant>,
    /// Nothing else is sent here.
    alone: bool,
}

/// All of a thread.
pub(super) struct Lines {
    open: HashMap<Contact, BTreeMap<LineId, Line>>,
    last: u64,
    dialler: Dialler,
    events: mpsc::Sender<Event>,
}

impl Lines {
    pub(super) fn new(servers: Arc<[Server]>, families: (bool, bool), events: mpsc::Sender<Event>) -> Self {
        Self { open: HashMap::new(), last: 0, dialler: Dialler::new(servers, families), events }
    }

    /// Gives a message to a connection, a new one if need be. Returns the connection, if there is room, and
    /// another which had to make room.
    pub(super) fn pass_on(
        &mut self,
        server: Contact,
        ask: Ask,
        tasks: &mut JoinSet<()>,
    ) -> (Option<LineId>, Option<LineId>) {
        let lines = self.open.entry(server).or_default();
        let full = lines.len() >= MOST_AT_SERVER;
        let fit = lines.iter().filter(|(_, line)| !ask.again && !line.alone && !line.tell.is_closed());
        let freest = fit.min_by_key(|(_, line)| line.under_way.len());
        let freest = freest.filter(|(_, line)| full || line.under_way.len() < PIPELINED).map(|(id, _)| *id);
        let mut crowded_out = None;
        let id = match freest {
            Some(id) => id,
            None => {
                if self.open.values().map(BTreeMap::len).sum::<usize>() >= MOST {
                    crowded_out = self.make_room();
                }
                self.dial(server, ask.again, tasks)
            }
        };
        let Some(line) = self.open.get_mut(&server).and_then(|lines| lines.get_mut(&id)) else {
            return (None, crowded_out);
        };
        let exchange = ask.exchange;
        if line.tell.try_send(Command::Ask(ask)).is_err() {
            return (None, crowded_out);
        }
        line.used = Instant::now();
        line.under_way.insert(exchange, line.used);
        (Some(id), crowded_out)
    }

    fn dial(&mut self, server: Contact, alone: bool, tasks: &mut JoinSet<()>) -> LineId {
        self.last += 1;
        let id = LineId(self.last);
        let (tell, commands) = mpsc::channel(WAITING);
        let (events, dialler) = (self.events.clone(), self.dialler.clone());
        let task = tasks.spawn_local(async move {
            let unanswered = dialler.run(server, commands, &events).await;
            let _ = events.send(Event::Over(server, id, unanswered)).await;
        });
        let line = Line { tell, task, under_way: BTreeMap::new(), used: Instant::now(), heard: None, alone };
        self.open.entry(server).or_default().insert(id, line);
        id
    }

    /// Closes the connection that was not used for the longest, one without anything under way first.
    fn make_room(&mut self) -> Option<LineId> {
        let all = self.open.iter().flat_map(|(server, lines)| lines.iter().map(move |line| (*server, line)));
        let (server, id) = all
            .min_by_key(|(_, (_, line))| (!line.under_way.is_empty(), line.used))
            .map(|(server, (id, _))| (server, *id))?;
        self.remove(server, id)?.task.abort();
        Some(id)
    }

    fn remove(&mut self, server: Contact, id: LineId) -> Option<Line> {
        let lines = self.open.get_mut(&server)?;
        let line = lines.remove(&id);
        if lines.is_empty() {
            self.open.remove(&server);
        }
        line
    }

    fn line(&mut self, server: Contact, id: LineId) -> Option<&mut Line> {
        self.open.get_mut(&server)?.get_mut(&id)
    }

    /// Something came.
    pub(super) fn heard(&mut self, server: Contact, id: LineId) {
        if let Some(line) = self.line(server, id) {
            line.heard = Some(Instant::now());
        }
    }

    /// An exchange is over, one way or the other.
    pub(super) fn cancel(&mut self, server: Contact, id: LineId, exchange: ExchangeId) {
        let Some(line) = self.line(server, id) else { return };
        let sent = line.under_way.remove(&exchange);
        let unheard =
            sent.is_some_and(|sent| sent.elapsed() >= DEAD_AFTER && line.heard.is_none_or(|heard| heard < sent));
        // Where there is no room for it, an answer that comes after all is dropped by the core.
        let _ = line.tell.try_send(Command::Cancel(exchange));
        if unheard || line.alone && line.under_way.is_empty() {
            // It ends when nothing is under way any more.
            self.remove(server, id);
        }
    }

    /// A connection has ended; says whether it was of use before.
    pub(super) fn over(&mut self, server: Contact, id: LineId) -> bool {
        self.remove(server, id).is_some_and(|line| line.heard.is_some())
    }
}
