from datasets.acdc.acdc_dataset_builder import Builder, Config
