//! What every backend must do. Each backend's test calls [`check`] with an empty store.
