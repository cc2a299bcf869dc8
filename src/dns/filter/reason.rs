//! Why a part of a list is not taken.

/// Why something in a list is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not a host name.
    NotAName,
    /// An address where a name belongs.
    Address,
    /// A URL, a path or a port.
    Url,
    /// A name of the machine itself, as hosts files have them.
    ThisHost,
    /// A name of one label, in a format that lists hosts.
    OneLabel,
    /// A hosts line or record that gives a real address, or a server to ask.
    Rewrite,
    /// A part of a URL, or a pattern that no name fits.
    Pattern,
    /// A regular expression that is not understood.
    Regex,
    /// A regular expression that compiles to too much.
    RegexTooLarge,
    /// More special rules than there is room for.
    NoRoom,
    /// A rule for the contents of pages.
    Cosmetic,
    /// A rule with a modifier that says nothing to a DNS server.
    Modifier,
    /// An RPZ trigger other than the name asked for and the address answered.
    Trigger,
    /// An RPZ action that is not known.
    Action,
    /// A line about the list or zone itself.
    Header,
    /// A line of more than 4096 octets.
    TooLong,
    /// Bytes that are no text.
    NotText,
}

impl Reason {
    /// Says it in words, to follow "ignored: ".
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotAName => "not a host name",
            Self::Address => "an address, not a name",
            Self::Url => "a URL, not a name",
            Self::ThisHost => "a name of the machine itself",
            Self::OneLabel => "a name of one label",
            Self::Rewrite => "an answer of its own",
            Self::Pattern => "a pattern that is not for names",
            Self::Regex => "a regular expression that is not understood",
            Self::RegexTooLarge => "a regular expression that is too large",
            Self::NoRoom => "one special rule too many",
            Self::Cosmetic => "a rule for the contents of pages",
            Self::Modifier => "a modifier that DNS does not know",
            Self::Trigger => "a trigger other than name and address",
            Self::Action => "an action that is not known",
            Self::Header => "about the list itself",
            Self::TooLong => "a line of more than 4096 octets",
            Self::NotText => "not text",
        }
    }
}
