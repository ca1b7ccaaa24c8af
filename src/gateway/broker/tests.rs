//! The broker of one run against a provider of ours.
