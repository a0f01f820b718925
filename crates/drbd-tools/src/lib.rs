//! What a person types about DRBD: drbdadm and its configuration.

pub mod drbd_conf;
