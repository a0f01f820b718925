//! What a person types about DRBD: drbdadm and its configuration.
