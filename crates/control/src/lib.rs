//! Control sockets: framing, version, credentials of the peer.
