//! What the console shows, in types of its own: whoever knows the planes fills them in.
//!
//! Times are seconds since 1970 unless a field says otherwise.

use super::schema::view;

view! {
    /// The state of everything at this moment.
    pub struct Status {
        /// The version of the program.
        pub version: String,
        /// Seconds since it was started.
        pub uptime: u64,
        /// The number of the configuration in force.
        pub generation: u64,
        /// When that came into force.
        pub loaded: i64,
        /// Who brought it.
        pub loaded_by: String,
        /// The planes and what works beside them.
        pub planes: Vec<Plane>,
        /// What wants to be looked after, the worst first.
        pub warnings: Vec<Warning>,
        /// Names that are kept at the address of this box, and how that goes.
        pub wan: Vec<KeptName>,
        /// A change that is taken back unless it is confirmed.
        pub waiting: Option<Waiting>,
        /// Rules and pauses that end by themselves, the first to end first.
        pub timed: Vec<Timed>,
        /// Whether a history of questions is kept.
        pub history: bool,
    }

    /// A part of the program.
    pub struct Plane {
        /// Its name.
        pub name: String,
        /// It works now.
        pub running: bool,
        /// Seconds since it was last started.
        pub uptime: u64,
        /// How often it was started again.
        pub restarts: u32,
        /// Why it last fell over.
        pub last_failure: Option<String>,
    }

    /// Something that wants to be looked after.
    pub struct Warning {
        /// What kind of thing: `plane_down`, `certificate_ends`, `certificate_problem`, `server_down`, `list_problem`,
        /// `reload_refused`, `wan_problem`, `clock_wrong`, `history_problem`, `dns_problem`, `old_endpoint`, `new_devices`.
        pub kind: String,
        /// What it is about.
        pub subject: String,
        /// What is known of it, in the words of the part that noticed.
        pub detail: String,
    }

    /// A name that is kept at the address of this box.
    pub struct KeptName {
        /// The name.
        pub name: String,
        /// Where it points to.
        pub addresses: Vec<String>,
        /// What went wrong the last time.
        pub problem: Option<String>,
    }

    /// A change that is taken back unless it is confirmed.
    pub struct Waiting {
        /// What it could cost its author.
        pub risk: String,
        /// Seconds until it is taken back.
        pub left: u64,
        /// The generation that it goes back to.
        pub before: u64,
    }

    /// Something that ends by itself.
    pub struct Timed {
        /// What it is.
        pub what: String,
        /// When it ends.
        pub until: i64,
    }

    /// A page of the log of questions.
    pub struct Queries {
        /// The newest first.
        pub queries: Vec<Query>,
        /// `before` of the next page, if there may be one.
        pub next: Option<i64>,
        /// The search took too long and ended here: there may be more before it.
        pub cut: bool,
    }

    /// One question.
    pub struct Query {
        /// Its number, by which it stands in time.
        pub id: i64,
        /// When it was answered, in milliseconds since 1970.
        pub at: i64,
        /// The name, in lower case.
        pub name: String,
        /// The name as people write it, where that differs.
        pub unicode: Option<String>,
        /// The type of records.
        pub rtype: String,
        /// Whose it was: a MAC address, `vpn:PEER`, or an address.
        pub client: String,
        /// What that device is called.
        pub device: Option<String>,
        /// How it ended.
        pub outcome: String,
        /// How it came.
        pub transport: String,
        /// The list or the group that decided; empty where none did.
        pub list: String,
        /// Microseconds until there was an answer, to within a fifth.
        pub took: u32,
    }

    /// The sums of a span of time.
    pub struct Top {
        /// All questions.
        pub questions: u64,
        /// Those that were blocked.
        pub blocked: u64,
        /// How they ended, the most frequent first.
        pub outcomes: Vec<Count>,
        /// In steps of ten minutes or more.
        pub timeline: Vec<Moment>,
        /// The names that were asked for most and were not blocked.
        pub names: Vec<Count>,
        /// The names that were blocked most.
        pub blocked_names: Vec<Count>,
        /// Who asked most.
        pub clients: Vec<Count>,
    }

    /// A thing and how often.
    pub struct Count {
        /// The thing.
        pub what: String,
        /// What it is called, where that differs.
        pub called: Option<String>,
        /// How often.
        pub questions: u64,
    }

    /// One bar of a timeline.
    pub struct Moment {
        /// When it begins.
        pub from: i64,
        /// All questions in it.
        pub questions: u64,
        /// Those that were blocked.
        pub blocked: u64,
    }

    /// What would happen to a question now, and why.
    pub struct Why {
        /// The name, absolute.
        pub name: String,
        /// The type of records.
        pub rtype: String,
        /// Who has the answer: `house`, `special` or `resolver`.
        pub answered_by: String,
        /// The group whose rules apply.
        pub group: Option<String>,
        /// What the rules say.
        pub verdict: Option<String>,
        /// The rules that apply, the one that decides first.
        pub rules: Vec<RuleLine>,
        /// The name that others are asked for in its place.
        pub alias: Option<String>,
        /// The response code.
        pub rcode: Option<String>,
        /// What is known of the answer's authenticity.
        pub security: Option<String>,
        /// What was wrong.
        pub problem: Option<String>,
        /// What was done to find it, in order.
        pub steps: Vec<String>,
        /// The answer's records.
        pub records: Vec<String>,
    }

    /// A rule that applies to a name.
    pub struct RuleLine {
        /// The list, or the group whose own rule it is.
        pub list: String,
        /// The line of the list.
        pub line: Option<u64>,
        /// The rule as it is written there.
        pub text: String,
        /// What it does: `block`, `allow` or another answer.
        pub effect: String,
    }

    /// A block or allow list.
    pub struct List {
        /// What the owner calls it.
        pub name: String,
        /// Distinct names with a rule.
        pub names: u64,
        /// Patterns and regular expressions.
        pub patterns: u64,
        /// Things that were not taken.
        pub ignored: u64,
        /// When the server of a list that is fetched was last heard.
        pub checked: Option<u64>,
        /// What keeps it from being as its owner wants it.
        pub problem: Option<String>,
    }

    /// A device of the house.
    pub struct Device {
        /// Its MAC address.
        pub mac: String,
        /// What a DHCP server knows it by.
        pub name: Option<String>,
        /// Its addresses of this moment.
        pub addresses: Vec<String>,
        /// The groups that they are in.
        pub groups: Vec<String>,
        /// It was not seen before, and nobody has said that it is known.
        pub new: bool,
        /// When it was last on the wire.
        pub last_seen: u64,
    }

    /// A route of the ingress.
    pub struct Route {
        /// Its name.
        pub name: String,
        /// Its host.
        pub host: String,
        /// Its path.
        pub path: String,
        /// Who may use it.
        pub access: Vec<String>,
        /// Where requests go.
        pub to: Vec<Server>,
        /// Requests so far, by class of the status: 1xx to 5xx.
        pub requests: Vec<u64>,
        /// Requests whose answer has not ended.
        pub under_way: u64,
        /// Half of the answers took at most so many milliseconds, as far as that is known.
        pub median: Option<u64>,
        /// And all but one in twenty.
        pub slowest: Option<u64>,
        /// When its certificate ends.
        pub certificate_ends: Option<u64>,
    }

    /// Where requests of a route go.
    pub struct Server {
        /// Its address, or what stands there instead.
        pub address: String,
        /// It answers; nothing is known of what is no server.
        pub up: Option<bool>,
    }

    /// A certificate in use.
    pub struct Certificate {
        /// The hosts that it is used for.
        pub hosts: Vec<String>,
        /// A file, the house's CA, or a public one with the name that is ordered there.
        pub source: String,
        /// When it ends; nothing as long as there is none.
        pub not_after: Option<u64>,
        /// The house's CA stands in for a public one that has not given its certificate yet.
        pub stand_in: bool,
        /// When it is asked for again, where that is known.
        pub next: Option<u64>,
        /// What went wrong the last time.
        pub problem: Option<String>,
    }

    /// A peer of the gate.
    pub struct Peer {
        /// What it is called.
        pub name: String,
        /// Its group.
        pub group: Option<String>,
        /// Its public key.
        pub public_key: String,
        /// Its inner addresses.
        pub addresses: Vec<String>,
        /// Whose it is.
        pub user: Option<String>,
        /// What that person may change: `viewer`, `operator` or `owner`.
        pub role: Option<String>,
        /// It may come in.
        pub enabled: bool,
        /// From then on it is no peer.
        pub expires: Option<i64>,
        /// It reaches nothing before its person has confirmed.
        pub must_confirm: bool,
        /// Until then it is confirmed.
        pub confirmed_until: Option<u64>,
        /// When a session was last proven.
        pub last_handshake: Option<u64>,
        /// Where it was last heard.
        pub endpoint: Option<String>,
        /// Bytes received from it since the process began.
        pub received: u64,
        /// Bytes sent to it.
        pub sent: u64,
        /// It was added by a command or here, and can be changed here.
        pub is_edit: bool,
    }

    /// A part of the audit log.
    pub struct Audit {
        /// The newest first.
        pub entries: Vec<AuditEntry>,
        /// `before` of the next page, if there is one.
        pub next: Option<u64>,
        /// Entries that are kept.
        pub kept: u64,
        /// The digest of the last line, if the chain is whole.
        pub digest: Option<String>,
        /// Why the log is not to be believed.
        pub broken: Option<String>,
    }

    /// Who did what.
    pub struct AuditEntry {
        /// Counted from 1.
        pub number: u64,
        /// When, in UTC.
        pub at: String,
        /// Who.
        pub by: String,
        /// Did what.
        pub what: String,
        /// What came of it.
        pub outcome: String,
    }

    /// A configuration that was accepted.
    pub struct Generation {
        /// Its number.
        pub number: u64,
        /// When.
        pub time: i64,
        /// Who brought it.
        pub author: String,
        /// SHA-256 of file and edits.
        pub digest: String,
    }

    /// The text of a configuration, without its secrets.
    pub struct ConfigText {
        /// Its number.
        pub number: u64,
        /// The owner's file as it was.
        pub file: String,
        /// What commands and the console added.
        pub edits: String,
    }

    /// What was done.
    pub struct Done {
        /// When it ends by itself.
        pub until: Option<i64>,
        /// The number of the configuration in force.
        pub generation: u64,
        /// It is taken back unless it is confirmed.
        pub waiting: Option<Waiting>,
        /// What a new peer's device needs, its private key with it: it is kept nowhere.
        pub configuration: Option<String>,
        /// `vpn.endpoint` is not set, and the configuration has a guess.
        pub endpoint_is_guessed: bool,
    }

    /// What went wrong (RFC 9457).
    pub struct Problem {
        /// The status.
        pub status: u16,
        /// What it says.
        pub title: String,
        /// What is wrong with this request.
        pub detail: String,
    }
}
