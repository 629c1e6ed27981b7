"""Which KPU for ResNet-50 and BERT-base? See README.md beside this file."""
