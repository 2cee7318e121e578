//! Steps of one second and a half, put back at once.
