//! stub
pub(crate) fn main() -> Result<(), String> {
    Err("stub".into())
}
