-- The job goes on from its latest checkpoint.
obj.spec.suspend = false
return obj
