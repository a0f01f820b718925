//! A cloud in a box: servers, networks and volumes on one machine.
