//! The readiness driver.
