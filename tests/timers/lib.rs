//! The gate's wall around boringtun, compiled from its own files, with a clock that stands still until a test moves it.

/// As far as it is compiled here, by the paths that its files know each other by.
#[path = "../../src/vpn"]
pub mod vpn {
    pub mod keys;

    /// Without the gate's other files.
    pub mod gate {
        pub mod sessions;
    }
}
