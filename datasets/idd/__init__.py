from datasets.idd.idd_dataset_builder import Builder, Config
