//! Every configuration that was accepted, so that each change can be seen and taken back.
