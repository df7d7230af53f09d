//! Every rule of the machine, left out.
