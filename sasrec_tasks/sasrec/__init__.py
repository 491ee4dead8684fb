"""SASRec on numpy, torch and safetensors: sequences in; weights, ranks and metrics out."""
