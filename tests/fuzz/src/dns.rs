/// A message: what is said to it is an answer to it, and is read as one.
pub fn dns_message(bytes: &[u8]) {
    let Some(answer) = hearthgate::dns::read_message(bytes) else { return };
    let header = answer.get(..12).expect("an answer has a header");
    assert_eq!(header[..2], bytes[..2], "another id");
    assert_eq!((header[2] & 0x80, header[2] & 0x78), (0x80, bytes[2] & 0x78), "no answer, or to another operation");
    // An answer is never answered, or two servers would go on for ever.
    assert_eq!(hearthgate::dns::read_message(&answer), None);
}
