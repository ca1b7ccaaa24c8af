//! git_objects
