"""Many images: tables and ledgers as queues of jobs, the scan that fills them, and one runner.

No pixels, no networks and no command line: images are enlarged through pipeline.run. Nothing is
exported here, because these modules load torch and pyarrow; import what you need by its module.
"""
