-- Attempts end with a checkpoint, and none begins until the job is resumed.
obj.spec.suspend = true
return obj
