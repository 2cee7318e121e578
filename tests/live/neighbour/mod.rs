//! Neighbours (ARP, NDP): how their entries change, and what of it is an incident.

mod entries;
mod incidents;
