// What formulas are written with.  A formula is what a layer or a solver does to one element; the
// same text is compiled for CPUs and for GPUs.
//
// Before this file, each processor defines FORMULA (how a function is declared) and, for float and
// double, exp_of, log_of and sqrt_of.
