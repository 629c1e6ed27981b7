"""Which KPU for ResNet-50 and BERT-base? See `__main__`."""
