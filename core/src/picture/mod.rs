//! Reading, resizing and writing pictures.
