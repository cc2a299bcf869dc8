//! Every sentence of the console, in every language: one line says a thing in all of them, so that none can lack it.

use hyper::{HeaderMap, header};

/// Defines the catalogue.
macro_rules! words {
    ($($key:ident: $english:literal, $german:literal;)*) => {
        /// The sentences of one language.
        #[derive(Debug)]
        pub(super) struct Words {
            /// Its tag (BCP 47).
            pub(super) tag: &'static str,
            $(pub(super) $key: &'static str,)*
        }

        pub(super) static ENGLISH: Words = Words { tag: "en", $($key: $english,)* };
        pub(super) static GERMAN: Words = Words { tag: "de", $($key: $german,)* };

        /// A language in which everything that comes from the catalogue shows it.
        #[cfg(test)]
        pub(super) static MARKED: Words = Words { tag: "en", $($key: concat!("⟦", stringify!($key), "⟧"),)* };

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str, &str)] = &[$((stringify!($key), $english, $german),)*];
    };
}

/// Which of them a visitor reads: what was chosen here, else what the browser asks for.
pub(super) fn of(headers: &HeaderMap) -> &'static Words {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok()).unwrap_or_default();
    let chosen = text(header::COOKIE).split(';').find_map(|pair| pair.trim().strip_prefix("hearthgate-language="));
    let asked = text(header::ACCEPT_LANGUAGE).split(',').map(|wish| wish.split(';').next().unwrap_or_default().trim());
    let tags = chosen.into_iter().chain(asked);
    tags.map(|tag| tag.split('-').next().unwrap_or_default()).find_map(named).unwrap_or(&ENGLISH)
}

/// Returns the language with this tag.
pub(super) fn named(tag: &str) -> Option<&'static Words> {
    [&ENGLISH, &GERMAN].into_iter().find(|words| words.tag.eq_ignore_ascii_case(tag))
}

words! {
    console: "hearthgate console", "hearthgate-Konsole";
    skip: "Skip to the content", "Zum Inhalt springen";
    sections: "Sections", "Bereiche";
    overview: "Overview", "Übersicht";
    dns: "DNS", "DNS";
    ingress: "Ingress", "Ingress";
    vpn: "VPN", "VPN";
    config: "Configuration", "Konfiguration";
    audit: "Audit log", "Protokoll";
    language: "Language", "Sprache";
    english: "English", "English";
    german: "Deutsch", "Deutsch";
    you_are: "You are", "Du bist";
    role_viewer: "may look", "darf ansehen";
    role_operator: "may change what ends by itself", "darf ändern, was von selbst endet";
    role_owner: "may change everything", "darf alles ändern";
    never: "never", "nie";
    yes: "yes", "ja";
    older: "Older", "Ältere";
    newest: "Newest", "Neueste";
    search: "Search", "Suchen";
    error: "That did not work", "Das ging nicht";
    back: "Back", "Zurück";
    nothing_here: "There is nothing here", "Hier ist nichts";

    all_well: "Everything is well.", "Alles ist in Ordnung.";
    look_after: "To look after", "Zu erledigen";
    parts: "Parts", "Teile";
    part: "Part", "Teil";
    state: "State", "Zustand";
    running: "running", "läuft";
    down: "down", "steht still";
    since: "Since", "Seit";
    restarts: "Started again", "Neu gestartet";
    last_failure: "Last failure", "Letzter Fehler";
    today: "The last 24 hours", "Die letzten 24 Stunden";
    questions: "Questions", "Fragen";
    blocked: "Blocked", "Blockiert";
    online: "Peers on line", "Verbundene Geräte";
    top_clients: "Who asked most", "Wer am meisten fragte";
    top_names: "Asked for most", "Am meisten gefragt";
    top_blocked: "Blocked most", "Am meisten blockiert";
    no_history: "No history of questions is kept: add a [history] section to the configuration.", "Es wird kein Verlauf der Fragen geführt: ein Abschnitt [history] in der Konfiguration schaltet ihn ein.";
    timeline: "Questions over time", "Fragen im Lauf der Zeit";
    timeline_about: "Each bar is a span of the last 24 hours; its dark part was blocked.", "Jeder Balken ist ein Abschnitt der letzten 24 Stunden; der dunkle Teil wurde blockiert.";
    wan: "Names on the Internet", "Namen im Internet";
    name: "Name", "Name";
    addresses: "Addresses", "Adressen";
    problem: "Problem", "Problem";
    last_change: "Last change", "Letzte Änderung";
    generation: "Generation", "Stand";
    by: "By", "Durch";
    ends_itself: "Ends by itself", "Endet von selbst";
    ends_at: "Ends", "Endet";
    waiting: "A change waits to be confirmed", "Eine Änderung wartet auf Bestätigung";
    waiting_left: "It is taken back in so many seconds:", "Sie wird zurückgenommen in so vielen Sekunden:";
    version: "Version", "Version";

    warn_plane_down: "A part does not run. See its last failure below and the log of the service.", "Ein Teil läuft nicht. Sein letzter Fehler steht unten, mehr im Log des Dienstes.";
    warn_certificate_ends: "A certificate ends soon or is missing. See the last error on the page of the ingress.", "Ein Zertifikat läuft bald ab oder fehlt. Der letzte Fehler steht auf der Ingress-Seite.";
    warn_certificate_problem: "A certificate was not renewed; it is tried again.", "Ein Zertifikat wurde nicht erneuert; es wird wieder versucht.";
    warn_server_down: "A server behind a route does not answer. Look at it, or at its address.", "Ein Server hinter einer Route antwortet nicht. Sieh nach ihm oder seiner Adresse.";
    warn_list_problem: "A list is not as wanted; the last good one stays in force.", "Eine Liste ist nicht, wie sie sein soll; die letzte gute gilt weiter.";
    warn_reload_refused: "The configuration was not taken; the one before is in force. Run `hearthgate check`.", "Die Konfiguration wurde nicht übernommen; die vorige gilt. Führe `hearthgate check` aus.";
    warn_wan_problem: "A name on the Internet is not where it should be.", "Ein Name im Internet zeigt nicht, wohin er soll.";
    warn_clock_wrong: "The clock of this box cannot be right. See its time service.", "Die Uhr dieses Geräts kann nicht stimmen. Sieh nach seinem Zeitdienst.";
    warn_history_problem: "The history cannot be written or read.", "Der Verlauf kann nicht geschrieben oder gelesen werden.";
    warn_dns_problem: "Something is odd about groups or files of the DNS.", "Etwas an Gruppen oder Dateien des DNS ist merkwürdig.";
    warn_old_endpoint: "A peer was told another endpoint than peers are told today.", "Einem Peer wurde ein anderer Endpunkt genannt, als Peers heute erfahren.";
    warn_new_devices: "So many devices were not seen before: `hearthgate devices` shows them.", "So viele Geräte waren zuvor nie da: `hearthgate devices` zeigt sie.";
    warn_other: "Something wants to be looked after.", "Etwas will beachtet werden.";

    log: "Log of questions", "Protokoll der Fragen";
    filter: "Filter", "Filter";
    device: "Device", "Gerät";
    outcome: "Outcome", "Ergebnis";
    list: "List or group", "Liste oder Gruppe";
    rtype: "Type", "Typ";
    from_time: "When", "Wann";
    took: "Took", "Dauer";
    why: "Why", "Warum";
    any: "any", "beliebig";
    cut: "The search took too long and ended here; what is older may be missing.", "Die Suche dauerte zu lang und endete hier; Älteres kann fehlen.";
    no_questions: "No question fits.", "Keine Frage passt.";
    outcome_blocked: "blocked", "blockiert";
    outcome_cached: "cached", "aus dem Speicher";
    outcome_resolved: "resolved", "aufgelöst";
    outcome_local: "of the house", "aus dem Haus";
    outcome_special: "special name", "besonderer Name";
    outcome_stale: "expired, nobody answered", "abgelaufen, niemand antwortete";
    outcome_failed: "failed", "fehlgeschlagen";
    outcome_refused: "refused", "abgelehnt";
    allow_hour: "Allow for an hour", "Eine Stunde erlauben";
    block_hour: "Block for an hour", "Eine Stunde blockieren";
    rule_title: "Allow or block a name", "Einen Namen erlauben oder blockieren";
    for_whom: "For", "Für";
    everybody: "everybody", "alle";
    how_long: "For how long", "Wie lange";
    for_good: "for good", "auf Dauer";
    allow: "Allow", "Erlauben";
    block: "Block", "Blockieren";
    forget: "Forget what was said", "Vergessen, was galt";
    pause_title: "Block nothing for a while", "Eine Weile nichts blockieren";
    or_device: "Or one device", "Oder ein Gerät";
    pause: "Pause", "Pausieren";
    resume: "End the pause", "Pause beenden";
    minutes_5: "5 minutes", "5 Minuten";
    minutes_30: "30 minutes", "30 Minuten";
    hour: "an hour", "eine Stunde";
    day: "a day", "ein Tag";
    action: "Do", "Tun";
    left: "Left", "Noch";
    no_devices: "No device was seen yet.", "Noch wurde kein Gerät gesehen.";
    live: "Show new questions as they come", "Neue Fragen gleich zeigen";
    tester: "What would happen?", "Was würde geschehen?";
    tester_about: "Asks the rules for a device, and looks the name up to see.", "Fragt die Regeln für ein Gerät und schlägt den Namen nach.";
    test: "Try it", "Ausprobieren";
    client: "For (device, peer or address)", "Für (Gerät, Peer oder Adresse)";
    answered_by: "Answered by", "Beantwortet von";
    by_house: "a record of the house", "einem Eintrag des Hauses";
    by_special: "the rule for special names", "der Regel für besondere Namen";
    by_resolver: "the resolver", "dem Resolver";
    group: "Group", "Gruppe";
    verdict: "What the rules say", "Was die Regeln sagen";
    rules: "Rules that apply, the one that decides first", "Regeln, die gelten; die entscheidende zuerst";
    line: "Line", "Zeile";
    rule: "Rule", "Regel";
    effect: "Effect", "Wirkung";
    alias: "Stands for", "Steht für";
    answer: "Answer", "Antwort";
    authenticity: "Authenticity (DNSSEC)", "Echtheit (DNSSEC)";
    steps: "What was done to find it", "Was dafür getan wurde";
    records: "Records", "Einträge";
    lists: "Lists", "Listen";
    names: "Names", "Namen";
    patterns: "Patterns", "Muster";
    ignored: "Not taken", "Nicht übernommen";
    checked: "Last heard", "Zuletzt gehört";
    devices: "Devices", "Geräte";
    new: "new", "neu";
    last_seen: "Last seen", "Zuletzt da";

    routes: "Routes", "Routen";
    host: "Host", "Host";
    access: "For", "Für";
    to: "To", "Zu";
    up: "up", "erreichbar";
    requests: "Answers", "Antworten";
    errors: "of them errors of servers", "davon Serverfehler";
    median: "Half within", "Die Hälfte binnen";
    slowest: "95 % within", "95 % binnen";
    certificate: "Certificate until", "Zertifikat bis";
    certificates: "Certificates", "Zertifikate";
    source: "From", "Von";
    ends: "Ends", "Läuft ab";
    next: "Renewed", "Erneuert";
    last_error: "Last error", "Letzter Fehler";
    stand_in: "the house's own stands in", "das des Hauses springt ein";
    no_ingress: "There are no routes.", "Es gibt keine Routen.";

    peers: "Peers", "Peers";
    person: "Person", "Person";
    handshake: "Last handshake", "Letzter Handschlag";
    endpoint: "Heard from", "Gehört von";
    received: "Received", "Empfangen";
    sent: "Sent", "Gesendet";
    enabled: "May come in", "Darf herein";
    disabled: "switched off", "ausgeschaltet";
    expires: "until", "bis";
    must_confirm: "has to confirm", "muss sich bestätigen";
    confirmed: "confirmed until", "bestätigt bis";
    add_peer: "Add a peer", "Einen Peer hinzufügen";
    add_peer_about: "Its configuration is shown once, as text and as a QR code, and kept nowhere. It belongs to nobody until `hearthgate user` says whose it is.", "Seine Konfiguration wird einmal gezeigt, als Text und als QR-Code, und nirgends aufbewahrt. Er gehört niemandem, bis `hearthgate user` sagt, wessen er ist.";
    last_day: "Last day", "Letzter Tag";
    add: "Add", "Hinzufügen";
    change: "Change", "Ändern";
    disable: "Switch off", "Ausschalten";
    enable: "Switch on", "Einschalten";
    rotate: "New keys", "Neue Schlüssel";
    remove: "Remove", "Entfernen";
    done: "It is done.", "Erledigt.";
    holds_until: "It holds until", "Es gilt bis";
    peer_configuration: "Configuration of the peer", "Konfiguration des Peers";
    shown_once: "This is shown once. Whoever has it comes in as this peer.", "Das wird nur einmal gezeigt. Wer es hat, kommt als dieser Peer herein.";
    endpoint_guessed: "`vpn.endpoint` is not set: see that the endpoint in it is right.", "`vpn.endpoint` ist nicht gesetzt: sieh nach, ob der Endpunkt darin stimmt.";
    qr: "The same as a QR code", "Dasselbe als QR-Code";
    no_peers: "There are no peers.", "Es gibt keine Peers.";

    entries: "Entries", "Einträge";
    number: "No.", "Nr.";
    what: "What", "Was";
    came_of: "Outcome", "Ergebnis";
    text: "Text", "Text";
    chain_whole: "Every entry is as it was written. Digest of the last:", "Jeder Eintrag ist, wie er geschrieben wurde. Prüfsumme des letzten:";
    chain_broken: "The log was tampered with or is damaged:", "Das Protokoll wurde verändert oder ist beschädigt:";
    no_entries: "No entry fits.", "Kein Eintrag passt.";

    keep: "Keep it", "Behalten";
    take_back: "Take it back now", "Jetzt zurücknehmen";
    rollback: "Go back", "Zurückgehen";
    rollback_edits: "Make the edits what they were then", "Die Änderungen auf damals zurücksetzen";
    in_force: "In force", "In Kraft";
    generations: "Generations", "Stände";
    changed_since: "What changed since", "Was sich änderte seit";
    no_difference: "Nothing is different.", "Nichts ist anders.";
    file: "The owner's file", "Die Datei des Besitzers";
    edits: "What commands and this console added", "Was Befehle und diese Konsole hinzufügten";
    secrets_hidden: "Secrets are left out.", "Geheimnisse sind ausgelassen.";
    show: "Show", "Zeigen";
    compare: "Compare", "Vergleichen";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_is_there_in_every_language() {
        for (key, english, german) in ALL {
            assert!(!english.trim().is_empty() && !german.trim().is_empty(), "{key}");
        }
        // What is the same in both is a name.
        let same: Vec<_> = ALL.iter().filter(|(_, english, german)| english == german).map(|(key, ..)| *key).collect();
        let names = [
            "dns", "ingress", "vpn", "english", "german", "version", "name", "host", "peers", "person", "problem",
            "filter", "text",
        ];
        assert!(same.iter().all(|key| names.contains(key)), "{same:?}");
    }

    #[test]
    fn a_visitor_reads_what_he_chose_or_what_the_browser_asks_for() {
        let tag = |fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            of(&HeaderMap::from_iter(fields)).tag
        };

        assert_eq!(tag(&[]), "en");
        assert_eq!(tag(&[("accept-language", "de-AT,de;q=0.8,en;q=0.5")]), "de");
        assert_eq!(tag(&[("accept-language", "fr, de;q=0.7")]), "de");
        assert_eq!(tag(&[("accept-language", "de"), ("cookie", "a=b; hearthgate-language=en")]), "en");
        assert_eq!(tag(&[("cookie", "hearthgate-language=xx")]), "en");
    }
}
