//! DNS lookups: what becomes of them, whose they are, and which server was asked.

mod lookups;
mod resolvers;
